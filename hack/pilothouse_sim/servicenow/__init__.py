"""A stand-in for a ServiceNow instance: Table API, service catalog, knowledge and attachments, with users' rights."""
