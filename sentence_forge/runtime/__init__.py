"""What all commands share: start-up, one-line errors, files that survive a crash. Imports no other package of ours."""
