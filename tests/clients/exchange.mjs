// A workload's JWT for a task's token, that for a service's, and the service that takes it.
import * as oauth from 'oauth4webapi'
import {
  ACCESS_TOKEN, JWT, as, authentication, exchange, finish, input, issuer, options, refusal,
} from './start.mjs'

const client = { client_id: input.client_id }
const none = await authentication()

const own = await exchange(client, none, {
  subject_token: input.subject_token,
  subject_token_type: JWT,
  resource: input.issuer,
  authorization_details: input.authorization_details,
})
const shown = await oauth.protectedResourceRequest(
  own.access_token, 'GET', new URL(`/v1/tasks/${input.task_id}`, issuer), undefined, null, options)

const narrowing = new URLSearchParams({
  subject_token: own.access_token,
  subject_token_type: ACCESS_TOKEN,
  requested_token_type: ACCESS_TOKEN,
  scope: input.scope,
})
for (const resource of input.resources) narrowing.append('resource', resource)
for (const audience of input.audiences) narrowing.append('audience', audience)
const narrow = await exchange(client, none, narrowing)

// The service's side (RFC 9068 section 4).
function arrives(token) {
  const headers = { authorization: `Bearer ${token}` }
  return new Request('https://service.example/orders', { headers })
}
const seen = []
for (const resource of input.resources) {
  seen.push(await oauth.validateJwtAccessToken(as, arrives(narrow.access_token), resource, options))
}
const from = { subject_token: own.access_token, subject_token_type: ACCESS_TOKEN }
const refused = {
  elsewhere: await refusal(
    oauth.validateJwtAccessToken(as, arrives(narrow.access_token), 'urn:other', options)),
  workload: await refusal(
    oauth.validateJwtAccessToken(as, arrives(input.subject_token), 'broker', options)),
  backwards: await refusal(exchange(client, none, { ...from, subject_token: narrow.access_token })),
  target: await refusal(exchange(client, none, { ...from, resource: 'urn:unheard' })),
  scope: await refusal(
    exchange(client, none, { ...from, resource: input.resources[0], scope: 'all' })),
  actor: await refusal(exchange(client, none, { ...from, actor_token: 'alone' })),
}

finish({ own, task: await shown.json(), narrow, seen, refused })
