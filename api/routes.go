package api

import (
	"net/http"
	"reflect"
)

// auth says who may call an operation at all. The operation itself decides what each caller may do.
type auth int

const (
	open   auth = iota // anybody
	member             // anybody with a valid token
	admin              // principals with the admin right
)

// param is a query parameter.
type param struct {
	name, about string
	kind        string // JSON schema type
	enum        []any
}

// route is one operation: the mux and the OpenAPI document are both made from it.
type route struct {
	method, path string
	about        string
	auth         auth
	query        []param
	operation
	// codes are the refusals beside those that every route has.
	codes []Code
	// beginsNew: the operation only ever begins something new. It is refused while the server
	// drains. For an operation that may also be a repeat, upload asks.
	beginsNew bool
	// longAnswer: the answer may have more than a few KiB, and counts before it is made.
	longAnswer bool
}

// operation is what a route does, and its wire types.
type operation struct {
	in, out reflect.Type // nil: no JSON
	raw     bool         // the request's body is raw bytes
	content bool         // the answer's body is raw bytes
	status  int
	// header names a header of the good answer, and headerAbout its meaning.
	header, headerAbout string
	serve               func(*Server, *call) error
}

// answering makes an operation without a request body.
func answering[Out any](f func(*Server, *call) (Out, error)) operation {
	return operation{out: reflect.TypeFor[Out](), status: http.StatusOK, serve: func(s *Server, c *call) error {
		out, err := f(s, c)
		if err == nil {
			s.answer(c, http.StatusOK, "application/json", out)
		}
		return err
	}}
}

// exchanging makes an operation from JSON to JSON.
func exchanging[In, Out any](f func(*Server, *call, In) (Out, error)) operation {
	of := shapeOf(reflect.TypeFor[In]())
	o := answering(func(s *Server, c *call) (out Out, err error) {
		var in In
		if err := decode(c.req, c.body, maxJSONOf[In](), of, s.chargeJSON(c), &in); err != nil {
			return out, err
		}
		return f(s, c, in)
	})
	o.in = reflect.TypeFor[In]()
	return o
}

// commanding makes an operation from JSON to nothing.
func commanding[In any](f func(*Server, *call, In) error) operation {
	of := shapeOf(reflect.TypeFor[In]())
	return operation{in: reflect.TypeFor[In](), status: http.StatusNoContent, serve: func(s *Server, c *call) error {
		var in In
		if err := decode(c.req, c.body, maxJSONOf[In](), of, s.chargeJSON(c), &in); err != nil {
			return err
		}
		if err := f(s, c, in); err != nil {
			return err
		}
		c.WriteHeader(http.StatusNoContent)
		return nil
	}}
}

func maxJSONOf[In any]() int64 {
	if reflect.TypeFor[In]() == reflect.TypeFor[FinishBatchRequest]() {
		return maxBatchJSON
	}
	return maxJSON
}

// with returns a changed copy of an operation.
func (o operation) with(change func(*operation)) operation {
	change(&o)
	return o
}

func takesBytes(o *operation) { o.raw = true }

const contentPath = "/v1/memories_content/"

// routes is the table.
func routes() []route {
	const get, post, put = http.MethodGet, http.MethodPost, http.MethodPut
	cursor := param{name: "cursor", about: "next_cursor of the page before", kind: "string"}
	limit := param{name: "limit", about: "how many at most, 1 to 1000 (100)", kind: "integer"}
	capsule := param{name: "capsule_id", about: "the capsule (default)", kind: "string"}
	path := param{
		name: "path", about: "where the file was in a folder that is uploaded: relative, / between parts",
		kind: "string",
	}
	idem := param{name: "idem", about: "idempotency key: a repeat answers the same memory", kind: "string"}
	replace := param{name: "replace", about: "withdraws what is recorded there, then stores", kind: "boolean"}
	endedCodes := []Code{CodeNotFound, CodeForbidden, CodeAlreadyFinished, CodeAlreadyAborted, CodeSessionExpired}
	bodyCodes := append(
		[]Code{
			CodeTooLarge, CodeUnsupportedMediaType, CodeChecksumMismatch, CodeTimeout, CodeStorageFull,
			CodeResourceExhausted,
		},
		endedCodes...,
	)
	putCodes := append([]Code{CodeChunkConflict, CodeSuperseded, CodeQuotaExceeded}, bodyCodes...)
	finishCodes := append(
		[]Code{CodeIncomplete, CodeChecksumMismatch, CodeLengthMismatch, CodeQuotaExceeded}, endedCodes...,
	)
	createCodes := append([]Code{CodeIdempotencyConflict, CodeQuotaExceeded, CodeSuperseded}, bodyCodes...)
	accessCodes := []Code{CodeNotFound, CodeForbidden}

	return []route{
		{
			method: get, path: "/v1/upload_config", auth: member, operation: answering((*Server).uploadConfig),
			about: "The limits in force.",
		},
		{
			method: post, path: "/v1/uploads_begin", auth: member, operation: exchanging((*Server).begin),
			codes: append(
				[]Code{
					CodeQuotaExceeded, CodeIdempotencyConflict, CodeTooLarge, CodeUnsupportedMediaType,
					CodeResourceExhausted, CodeStorageFull, CodeAlreadyFinished,
				},
				accessCodes...,
			),
			about: "Makes a session, or answers the one that the same idem has.",
		},
		{
			method: put, path: "/v1/uploads_put_chunk/{session_id}/{chunk_idx}", auth: member, query: []param{replace},
			codes:     putCodes,
			operation: operation{raw: true, status: http.StatusNoContent, serve: (*Server).putChunk},
			about:     "Stores one chunk: whole, or nothing of it. 204 is a durable promise.",
		},
		{
			method: put, path: "/v1/uploads_put_range/{session_id}/{offset}", auth: member, query: []param{replace},
			codes: append([]Code{CodeRangeNotSatisfiable}, putCodes...),
			operation: operation{
				raw: true, status: http.StatusNoContent, serve: (*Server).putRange, header: receivedHeader,
				headerAbout: "bytes recorded",
			},
			about: "Stores bytes of any length at an offset. What arrived is recorded, even of a request that was cut.",
		},
		{
			method: post, path: "/v1/uploads_finish", auth: member, operation: exchanging((*Server).finish),
			codes: finishCodes,
			about: "Verifies the whole content and makes it a memory. A repeat answers the same one.",
		},
		{
			method: post, path: "/v1/uploads_finish_batch", longAnswer: true, auth: member,
			operation: exchanging((*Server).finishBatch), codes: append([]Code{CodeTooLarge}, finishCodes...),
			about: "Finishes up to 1,000 sessions of one capsule together, or none of them.",
		},
		{
			method: post, path: "/v1/uploads_abort", auth: member, operation: commanding((*Server).abort),
			codes: endedCodes,
			about: "Ends a session; a repeat is fine.",
		},
		{
			method: get, path: "/v1/uploads_status/{session_id}", longAnswer: true, auth: member, codes: accessCodes,
			operation: answering((*Server).status),
			query:     []param{{name: "crc", about: "adds the CRC-32C of each whole chunk", kind: "boolean"}},
			about:     "The caller's session: what has arrived, and what is missing.",
		},
		{
			method: get, path: "/v1/uploads_list", longAnswer: true, auth: member, query: []param{cursor, limit},
			operation: answering((*Server).uploadsList),
			about:     "The caller's own open sessions, newest first.",
		},

		{
			method: post, path: "/v1/memories_create", auth: member, codes: createCodes,
			query:     []param{capsule, {name: "name", about: "of the file", kind: "string"}, path, idem},
			operation: answering((*Server).create).with(takesBytes),
			about:     "A whole upload in one request, of any size.",
		},
		{
			method: put, path: "/v1/memories_create/{name}", auth: member, codes: createCodes,
			query:     []param{capsule, path, idem},
			operation: answering((*Server).create).with(takesBytes), about: "The same, for curl -T.",
		},
		{
			method: get, path: "/v1/memories_read/{memory_id}", auth: member, codes: accessCodes,
			operation: answering((*Server).readMemory), about: "One memory.",
		},
		{
			method: get, path: "/v1/memories_list", longAnswer: true, auth: member, codes: accessCodes,
			operation: answering((*Server).listMemories),
			query: []param{
				capsule,
				{name: "path_prefix", about: "only this folder", kind: "string"},
				{name: "name", about: "only this name", kind: "string"},
				{name: "sha256", about: "only this content", kind: "string"},
				{name: "trash", about: "those in the trash instead", kind: "boolean"},
				cursor, limit,
			},
			about: "The memories of a capsule, newest first.",
		},
		{
			method: post, path: "/v1/memories_update", auth: member, codes: accessCodes,
			operation: exchanging((*Server).updateMemory), about: "Changes what is given.",
		},
		{
			method: post, path: "/v1/memories_delete", auth: member, codes: accessCodes,
			operation: commanding((*Server).deleteMemory),
			about:     "Puts a memory into the trash, or with purge removes it for good.",
		},
		{
			method: post, path: "/v1/memories_restore", auth: member, codes: accessCodes,
			operation: exchanging((*Server).restoreMemory), about: "Takes a memory out of the trash.",
		},
		{
			method: post, path: "/v1/memories_ping", longAnswer: true, auth: member,
			operation: exchanging((*Server).ping), about: "Which of at most 1,000 memories the caller could read.",
		},
		{
			method: get, path: contentPath + "{memory_id}", auth: member,
			codes:     append([]Code{CodePreconditionFailed, CodeRangeNotSatisfiable, CodeDamaged}, accessCodes...),
			operation: operation{content: true, status: http.StatusOK, serve: (*Server).readContent},
			about:     "The content, whole or one range of it.",
		},

		{
			method: post, path: "/v1/capsules_create", auth: member, beginsNew: true,
			codes: []Code{CodeForbidden, CodeAlreadyExists}, operation: exchanging((*Server).createCapsule),
			about: "Makes a capsule.",
		},
		{
			method: get, path: "/v1/capsules_read/{capsule_id}", auth: member, codes: accessCodes,
			operation: answering((*Server).readCapsule), about: "A capsule with its counters.",
		},
		{
			method: get, path: "/v1/capsules_list", longAnswer: true, auth: member, query: []param{cursor, limit},
			operation: answering((*Server).listCapsules),
			about:     "The capsules that the caller has a role in; an admin sees all.",
		},
		{
			method: post, path: "/v1/capsules_update", auth: member, codes: accessCodes,
			operation: exchanging((*Server).updateCapsule),
			about:     "Changes what is given: name, roles, or, for an admin, quotas.",
		},
		{
			method: post, path: "/v1/capsules_delete", auth: member,
			codes: append([]Code{CodeNotEmpty}, accessCodes...), operation: commanding((*Server).deleteCapsule),
			about: "Deletes an empty capsule.",
		},

		{
			method: get, path: "/v1/whoami", auth: member, operation: answering((*Server).whoAmI),
			about: "The caller: its principal, its token, its limits and what it uses of them.",
		},
		{
			method: post, path: "/v1/tokens_create", auth: member, beginsNew: true,
			codes: []Code{CodeForbidden, CodeQuotaExceeded}, operation: exchanging((*Server).createToken),
			about: "Makes a token for the caller; an admin may name another principal. Its secret is shown this once.",
		},
		{
			method: get, path: "/v1/tokens_list", longAnswer: true, auth: member, codes: []Code{CodeForbidden},
			operation: answering((*Server).listTokens), query: []param{
				{name: "principal_id", about: "whose tokens (the caller's); another's for an admin", kind: "string"},
				cursor, limit,
			},
			about: "The caller's tokens, without their secrets, the oldest first.",
		},
		{
			method: post, path: "/v1/tokens_revoke", auth: member, codes: accessCodes,
			operation: commanding((*Server).revokeToken),
			about:     "Ends a token of the caller, or any for an admin. An upload with it is refused at its next record.",
		},

		{
			method: post, path: "/v1/principals_create", auth: admin, beginsNew: true,
			operation: exchanging((*Server).createPrincipal), about: "Makes a principal without a role.",
		},
		{
			method: get, path: "/v1/principals_list", longAnswer: true, auth: admin, query: []param{cursor, limit},
			operation: answering((*Server).listPrincipals), about: "All principals, the oldest first.",
		},
		{
			method: post, path: "/v1/principals_update", auth: admin, codes: []Code{CodeNotFound},
			operation: exchanging((*Server).updatePrincipal),
			about:     "Changes what is given: name, admin right, bounds of open sessions.",
		},
		{
			method: post, path: "/v1/principals_delete", auth: admin, codes: []Code{CodeNotFound},
			operation: commanding((*Server).deletePrincipal),
			about:     "Ends a principal with its tokens, roles and open sessions. Its memories stay in their capsules.",
		},

		{
			method: get, path: "/v1/sessions_list", longAnswer: true, auth: admin,
			operation: answering((*Server).sessionsList),
			query: []param{
				{name: "owner", about: "only this principal's", kind: "string"},
				{
					name: "state", about: "only these", kind: "string",
					enum: []any{"open", "sealed", "finished", "aborted", "expired"},
				},
				cursor, limit,
			},
			about: "Anybody's sessions.",
		},
		{
			method: get, path: "/v1/sessions_stats", auth: admin, operation: answering((*Server).sessionsStats),
			about: "The engine's figures.",
		},
		{
			method: post, path: "/v1/sessions_clear_all", auth: admin,
			operation: exchanging((*Server).sessionsClearAll), about: "Aborts every open session.",
		},
		{
			method: post, path: "/v1/sessions_cleanup_expired", auth: admin,
			operation: exchanging((*Server).sessionsCleanup), about: "Ends what is past its time to live, now.",
		},

		{
			method: get, path: ResourcePath, codes: []Code{CodeNotFound},
			operation: answering((*Server).protectedResource),
			about:     "At which issuer callers sign in (RFC 9728); 404 if there is none.",
		},
		{method: get, path: "/healthz", operation: answering((*Server).healthz), about: "The process is up."},
		{
			method: get, path: "/readyz", operation: answering((*Server).readyz),
			about: "The stores answer, and the server is not draining.",
		},
		{
			method: get, path: "/openapi.json",
			operation: operation{
				out: reflect.TypeFor[map[string]any](), status: http.StatusOK, serve: (*Server).openapi,
			},
			about: "This document.",
		},
	}
}
