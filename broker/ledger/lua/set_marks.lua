-- The marks of some principals or owners, in this shard. A = {marks, version}.
mark(A.marks, A.version)
return 'ok'
