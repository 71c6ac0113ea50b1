"""What needs a person: rules on what the stages measure."""
