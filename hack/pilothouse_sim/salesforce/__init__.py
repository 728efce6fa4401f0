"""A stand-in for a Salesforce organization: REST, SOQL, SOSL, composite and reports, with users' rights and sharing."""
