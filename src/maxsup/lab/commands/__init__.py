"""What each command does, from its options to what it prints; imports that take long are made where they are used."""
