// What every script here begins with: its input, the broker found by its issuer, a client, an end.
import * as oauth from 'oauth4webapi'

export const options = { [oauth.allowInsecureRequests]: true } // for http on loopback
export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const JWT = 'urn:ietf:params:oauth:token-type:jwt'
export const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

let text = ''
for await (const chunk of process.stdin) text += chunk
export const input = JSON.parse(text)
export const issuer = new URL(input.issuer)

const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options })
export const as = await oauth.processDiscoveryResponse(issuer, found)

// How the client called `client_id` authenticates: by its key if it has one, else not at all.
export async function authentication(jwk) {
  if (!jwk) return oauth.None()
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign'])
  return oauth.PrivateKeyJwt({ key, kid: jwk.kid })
}

// Do as the library's documentation does: once more if a nonce is asked for. It counts the tries.
export const tries = { count: 0 }
export async function withNonce(request) {
  tries.count += 1
  try {
    return await request()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    tries.count += 1
    return await request()
  }
}

// A token exchange (RFC 8693).
export async function exchange(client, auth, fields, extra = {}) {
  const response = await oauth.genericTokenEndpointRequest(
    as, client, auth, EXCHANGE, fields, { ...options, ...extra })
  return await oauth.processGenericTokenEndpointResponse(as, client, response)
}

// What an error says of itself. The server's word for it is in the body, in the challenge, or both.
export async function refusal(promise) {
  try {
    await promise
  } catch (error) {
    const { name, code, status = null, response } = error
    const challenge = error.cause?.[0]?.parameters?.error
    const said = error.error ?? challenge ?? (response && (await response.json()).error) ?? null
    return { name, code, status, error: said }
  }
  return null
}

export function finish(output) {
  process.stdout.write(JSON.stringify(output))
}
