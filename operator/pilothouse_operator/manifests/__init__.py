"""Pure builders of a tenant's children: the same input gives the same manifest, nothing is read."""
