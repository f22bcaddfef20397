// Tokens that are bound to a key (RFC 9449): had, used, exchanged, shown to a service, stolen.
import * as oauth from 'oauth4webapi'
import {
  ACCESS_TOKEN, JWT, as, authentication, exchange, finish, input, issuer, options, refusal, tries,
  withNonce,
} from './start.mjs'

const client = { client_id: input.client_id }
const none = await authentication()
const holder = oauth.DPoP(client, await oauth.generateKeyPair(input.algorithm))
const thief = oauth.DPoP(client, await oauth.generateKeyPair(input.algorithm))

async function counted(work) {
  tries.count = 0
  return { result: await work(), tries: tries.count }
}
function bound(fields, DPoP) {
  return withNonce(() => exchange(client, none, fields, { DPoP }))
}
function call(token, DPoP, extra = {}, url = new URL('/v1/tasks?limit=5', issuer)) {
  return withNonce(() => oauth.protectedResourceRequest(
    token, 'GET', url, undefined, null, { ...options, ...extra, DPoP }))
}

const own = await counted(() => bound({
  subject_token: input.subject_token,
  subject_token_type: JWT,
  authorization_details: input.authorization_details,
}, holder))
const token = own.result.access_token
const used = await counted(async () => (await call(token, holder)).status)

const narrowing = {
  subject_token: token, subject_token_type: ACCESS_TOKEN, resource: input.resource }
const narrow = await counted(() => bound(narrowing, holder))

// A service behind the library, on the other end of its own fetch.
const service = new URL('https://service.example/reports')
const judge = {
  [oauth.customFetch]: async (url, init) => {
    const claims = await oauth.validateJwtAccessToken(
      as, new Request(url, init), input.resource, { ...options, requireDPoP: true })
    return Response.json(claims)
  },
}
const seen = await (await call(narrow.result.access_token, holder, judge, service)).json()

const gateway = { client_id: 'gateway' }
const auth = await authentication(input.jwk)
const response = await oauth.introspectionRequest(
  as, gateway, auth, narrow.result.access_token, { ...options, requestJwtResponse: true })
const found = await oauth.processIntrospectionResponse(as, gateway, response)
await oauth.validateApplicationLevelSignature(as, response, options)

const refused = {
  bearer: await refusal(call(token)),
  thief: await refusal(call(token, thief)),
  exchanged: await refusal(bound(narrowing, thief)),
  unbound: await refusal(exchange(client, none, narrowing)),
  service: await refusal(call(narrow.result.access_token, thief, judge, service)),
}
const jkt = await holder.calculateThumbprint()
finish({ own, used, narrow, seen, found, refused, jkt })
