# One OpenBao on raft storage, with TLS, that unseals itself by a key in a file. For more than one
# machine's worth of trust, take a KMS for the seal, and three nodes.
ui            = false
disable_mlock = true
api_addr      = "https://openbao:8200"
cluster_addr  = "https://openbao:8201"

storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao-1"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/run/secrets/openbao.pem"
  tls_key_file    = "/run/secrets/openbao.key"
  tls_min_version = "tls13"
}

seal "static" {
  current_key_id = "compose-1"
  current_key    = "file:///run/secrets/openbao-seal.key"
}
