
# Change a password that Vault uses itself, after break-glass. Nobody is told the new one.
path "PATH" {
  capabilities = ["update"]
}
