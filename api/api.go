// Package api is the wire: both ends of the /v1 operations over HTTP, the [Server] and the
// [Client].
//
// It owns the wire messages and their one conversion to and from the domain (wire*.go, convert.go),
// strict decoding (json.go), and the table of routes, from which the mux and the OpenAPI 3.1
// document are both made (routes.go, openapi.go). It owns the one table from error to problem
// (errors.go), and the duties of HTTP itself: authentication, limits, slow or cut bodies, ranges,
// safe headers.
//
// It does not own the operations' effects (upload, memories, session and access have them), any
// store, any policy, or the process. Package cmd decides which listeners there are, and when to
// stop.
//
//	request ─▶ guard: id, panic, limits ─▶ who calls ─▶ query, headers, JSON ─▶ operation ─▶ answer
//	                                           └────── any error ──────▶ problem table ─▶ answer
package api
