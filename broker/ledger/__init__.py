"""Every live grant, in Redis or Valkey: state changes by Lua, one shard per chain."""
