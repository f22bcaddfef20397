// What the broker says of itself: RFC 8414 and RFC 9728, as each other's evidence.
import * as oauth from 'oauth4webapi'
import { as, finish, issuer, options, refusal } from './start.mjs'

const response = await oauth.resourceDiscoveryRequest(issuer, options)
const resource = await oauth.processResourceDiscoveryResponse(issuer, response)

const challenge = await refusal(oauth.protectedResourceRequest(
  'no-token', 'GET', new URL('/v1/tasks', issuer), undefined, null, options))

finish({ server: as, resource, challenge })
