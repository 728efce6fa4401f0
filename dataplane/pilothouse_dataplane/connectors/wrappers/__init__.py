"""What stands around every connector: one wrapper a file, all with the connector's own interface."""
