"""What finished runs show beyond their records: arrays and records out, no drawing; nothing is trained again."""
