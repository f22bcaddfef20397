-- An operator's order to revoke, before it is carried out. A = {data, actor}.
emit('revocation', nil, nil, A.data)
return 'ok'
