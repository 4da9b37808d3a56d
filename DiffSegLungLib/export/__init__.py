"""What is handed out: label files, DICOM, the report; may import base and io to quantify."""
