"""What a terminal shows: tables, sentences, warnings."""
