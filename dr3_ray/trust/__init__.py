"""What may be printed and written: texts without control characters, and URIs without their keys."""
