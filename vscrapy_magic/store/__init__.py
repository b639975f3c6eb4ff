"""What all processes agree on: keys, messages and scripts; the only importer of redis."""
