# What the broker itself may do in Vault or OpenBao. It can't read a secret: credentials are read
# with a token made for one task, which carries the policies of that task's capabilities only.

# 1. Create tokens, through one token role.
path "auth/token/create/broker-task" {
  capabilities = ["create", "update"]
}

# 2. Look up, revoke and list the tokens it made, by accessor.
path "auth/token/lookup-accessor" {
  capabilities = ["create", "update"]
}
path "auth/token/revoke-accessor" {
  capabilities = ["create", "update"]
}
path "auth/token/accessors" {
  capabilities = ["list", "sudo"]
}
path "auth/token/accessors/" {
  capabilities = ["list", "sudo"]
}

# 3. Look up and revoke leases of the paths its capabilities read. One entry for each path.
path "sys/leases/lookup" {
  capabilities = ["create", "update"]
}
path "sys/leases/revoke" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "sync"     = []
    "lease_id" = [LEASES]
  }
}

# 4. List those leases.
LISTINGS

# 5. Renew them, when policy allows a credential to live longer.
path "sys/leases/renew" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "increment" = []
    "lease_id"  = [LEASES]
  }
}

# 6. Put a credential into a wrapping token. It can't take one out: that takes the token itself.
path "sys/wrapping/wrap" {
  capabilities     = ["create", "update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "10m"
}

# Its own token, and what that may do (for `broker doctor`).
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "sys/capabilities-self" {
  capabilities = ["create", "update"]
}
