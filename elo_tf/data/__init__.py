"""Videos to records, records to clips. Knows no model."""
