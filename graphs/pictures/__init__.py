"""What a person looks at: molecules and graphs, drawn and coloured, and predictions beside the truth."""
