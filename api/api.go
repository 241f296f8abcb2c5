// Package api is the wire: both ends of the /v1 operations over HTTP, the [Server] and the
// [Client].
//
// It owns the wire messages and their one conversion to and from the domain (wire.go, convert.go),
// strict decoding (json.go), the table of routes from which the mux and the OpenAPI 3.1 document
// are both made (routes.go, openapi.go), the one table from error to problem (errors.go), and what
// HTTP itself asks for: who calls, limits, slow or cut bodies, ranges, safe headers.
//
// It does not own what the operations do (upload, memories, session, access: it declares the part
// of them that it needs), any store, any policy, or the process: which listeners there are, and
// when to stop, is cmd's.
//
//	request ─▶ guard: id, panic, limits ─▶ who calls ─▶ query, headers, JSON ─▶ operation ─▶ answer
//	                                           └────── any error ──────▶ problem table ─▶ answer
package api
