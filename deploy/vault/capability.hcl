# One capability: read one path. Written as PREFIX-NAME, by default broker-cap-NAME.
path "PATH" {
  capabilities = ["read"]
}
