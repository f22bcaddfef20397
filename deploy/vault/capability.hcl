# One capability: one path. Engines that are asked by writing want "update" for RIGHT, the others
# "read". Written as PREFIX-NAME, by default broker-cap-NAME.
path "PATH" {
  capabilities = ["RIGHT"]
}
