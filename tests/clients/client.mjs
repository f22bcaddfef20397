// A client with a key of its own: credentials, introspection plain and signed, revocation.
import * as oauth from 'oauth4webapi'
import { as, authentication, finish, input, issuer, options, refusal } from './start.mjs'

const runner = { client_id: 'runner' }
const desk = { client_id: 'desk' }
const auth = await authentication(input.jwk)

async function credentials(client, fields) {
  const response = await oauth.clientCredentialsGrantRequest(as, client, auth, fields, options)
  return await oauth.processClientCredentialsResponse(as, client, response)
}
async function introspect(token, requestJwtResponse) {
  const response = await oauth.introspectionRequest(
    as, desk, auth, token, { ...options, requestJwtResponse })
  const body = await oauth.processIntrospectionResponse(as, desk, response)
  // Signed by the broker, and not just written: the library looks at this when it is asked to.
  if (requestJwtResponse) await oauth.validateApplicationLevelSignature(as, response, options)
  return { type: oauth.getContentType(response), body }
}
async function revoke(client, token) {
  const response = await oauth.revocationRequest(as, client, auth, token, options)
  return await oauth.processRevocationResponse(response)
}

const authorization_details = input.authorization_details
const own = await credentials(runner, { authorization_details })
const operator = await credentials(desk, {})
const plain = await introspect(own.access_token, false)
const signed = await introspect(own.access_token, true)
const refused = {
  another: await refusal(revoke(runner, operator.access_token)),
  stranger: await refusal(credentials({ client_id: 'nobody' }, {})),
  taskless: await refusal(credentials(runner, {})),
}
await revoke(runner, own.access_token)
await revoke(runner, 'no-token')
const after = await introspect(own.access_token, true)
refused.dead = await refusal(oauth.protectedResourceRequest(
  own.access_token, 'GET', new URL('/v1/tasks', issuer), undefined, null, options))

finish({ own, plain, signed, after, refused })
