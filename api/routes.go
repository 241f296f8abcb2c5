package api

import (
	"net/http"
	"reflect"
)

// auth says who may call an operation at all. The operation itself decides what each caller may do.
type auth int

const (
	open     auth = iota // anybody
	linked               // anybody with a read link, which is the path
	uploader             // anybody with a valid token or upload ticket
	member               // anybody with a valid token
	admin                // principals with the admin right
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
	// audit says which requests make a record in the audit log. Each route states it.
	audit audited
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
			var message any = out
			c.noteAnswer(message)
			s.answer(c, http.StatusOK, "application/json", message)
		}
		return err
	}}
}

// exchanging makes an operation from JSON to JSON.
func exchanging[In, Out any](f func(*Server, *call, In) (Out, error)) operation {
	of, ids := shapeOf(reflect.TypeFor[In]()), idFieldsOf(reflect.TypeFor[In]())
	o := answering(func(s *Server, c *call) (out Out, err error) {
		var in In
		if err := decode(c.req, c.body, maxJSONOf[In](), of, s.chargeJSON(c), &in); err != nil {
			return out, err
		}
		c.noteRequest(ids, &in)
		return f(s, c, in)
	})
	o.in = reflect.TypeFor[In]()
	return o
}

// commanding makes an operation from JSON to nothing.
func commanding[In any](f func(*Server, *call, In) error) operation {
	of, ids := shapeOf(reflect.TypeFor[In]()), idFieldsOf(reflect.TypeFor[In]())
	return operation{in: reflect.TypeFor[In](), status: http.StatusNoContent, serve: func(s *Server, c *call) error {
		var in In
		if err := decode(c.req, c.body, maxJSONOf[In](), of, s.chargeJSON(c), &in); err != nil {
			return err
		}
		c.noteRequest(ids, &in)
		if err := f(s, c, in); err != nil {
			return err
		}
		c.WriteHeader(http.StatusNoContent)
		return nil
	}}
}

func maxJSONOf[In any]() int64 {
	switch reflect.TypeFor[In]() {
	case reflect.TypeFor[FinishBatchRequest](), reflect.TypeFor[PrecheckRequest]():
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

// contentPath and linkPath are the addresses of contents.
const (
	contentPath = "/v1/memories_content/"
	linkPath    = "/r/"
)

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
		[]Code{
			CodeIncomplete, CodeChecksumMismatch, CodeLengthMismatch, CodeQuotaExceeded, CodeUnsupportedMediaType,
		},
		endedCodes...,
	)
	createCodes := append([]Code{CodeIdempotencyConflict, CodeQuotaExceeded, CodeSuperseded}, bodyCodes...)
	accessCodes := []Code{CodeNotFound, CodeForbidden}

	return append(accessRoutes(cursor, limit, capsule), []route{
		{
			audit:  auditRefusals,
			method: get, path: "/v1/upload_config", auth: uploader, operation: answering((*Server).uploadConfig),
			about: "The limits in force.",
		},
		{
			audit:  auditRefusals,
			method: post, path: "/v1/uploads_begin", auth: uploader, operation: exchanging((*Server).begin),
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
			audit:  auditRefusals,
			method: post, path: "/v1/uploads_precheck", longAnswer: true, auth: uploader, beginsNew: true,
			operation: exchanging((*Server).precheck),
			codes:     append([]Code{CodeTooLarge, CodeResourceExhausted, CodeStorageFull}, accessCodes...),
			about:     "What a begin of each of up to 1,000 files would answer. It reserves nothing.",
		},
		{
			audit:  auditRefusals,
			method: put, path: "/v1/uploads_put_chunk/{session_id}/{chunk_idx}", auth: uploader, query: []param{replace},
			codes:     putCodes,
			operation: operation{raw: true, status: http.StatusNoContent, serve: (*Server).putChunk},
			about:     "Stores one chunk: whole, or nothing of it. 204 is a durable promise.",
		},
		{
			audit:  auditRefusals,
			method: put, path: "/v1/uploads_put_range/{session_id}/{offset}", auth: uploader, query: []param{replace},
			codes: append([]Code{CodeRangeNotSatisfiable}, putCodes...),
			operation: operation{
				raw: true, status: http.StatusNoContent, serve: (*Server).putRange, header: receivedHeader,
				headerAbout: "bytes recorded",
			},
			about: "Stores bytes of any length at an offset. What arrived is recorded, even of a request that was cut.",
		},
		{
			audit:  auditRefusals,
			method: post, path: "/v1/uploads_finish", auth: uploader, operation: exchanging((*Server).finish),
			codes: finishCodes,
			about: "Verifies the whole content and makes it a memory. A repeat answers the same one.",
		},
		{
			audit:  auditRefusals,
			method: post, path: "/v1/uploads_finish_batch", longAnswer: true, auth: uploader,
			operation: exchanging((*Server).finishBatch), codes: append([]Code{CodeTooLarge}, finishCodes...),
			about: "Finishes up to 1,000 sessions of one capsule together, or none of them.",
		},
		{
			audit:  auditRefusals,
			method: post, path: "/v1/uploads_abort", auth: uploader, operation: commanding((*Server).abort),
			codes: endedCodes,
			about: "Ends a session; a repeat is fine.",
		},
		{
			audit:  auditRefusals,
			method: get, path: "/v1/uploads_status/{session_id}", longAnswer: true, auth: uploader, codes: accessCodes,
			operation: answering((*Server).status),
			query:     []param{{name: "crc", about: "adds the CRC-32C of each whole chunk", kind: "boolean"}},
			about:     "The caller's session: what has arrived, and what is missing.",
		},
		{
			audit:  auditRefusals,
			method: get, path: "/v1/uploads_list", longAnswer: true, auth: uploader, query: []param{cursor, limit},
			operation: answering((*Server).uploadsList),
			about:     "The caller's own open sessions, newest first.",
		},

		{
			audit:  auditRefusals,
			method: post, path: "/v1/memories_create", auth: member, codes: createCodes,
			query:     []param{capsule, {name: "name", about: "of the file", kind: "string"}, path, idem},
			operation: answering((*Server).create).with(takesBytes),
			about:     "A whole upload in one request, of any size.",
		},
		{
			audit:  auditRefusals,
			method: put, path: "/v1/memories_create/{name}", auth: member, codes: createCodes,
			query:     []param{capsule, path, idem},
			operation: answering((*Server).create).with(takesBytes), about: "The same, for curl -T.",
		},
		{
			audit:  auditRefusals,
			method: get, path: "/v1/memories_read/{memory_id}", auth: member, codes: accessCodes,
			operation: answering((*Server).readMemory), about: "One memory.",
		},
		{
			audit:  auditRefusals,
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
			audit:  auditRefusals,
			method: post, path: "/v1/memories_update", auth: member, codes: accessCodes,
			operation: exchanging((*Server).updateMemory), about: "Changes what is given.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/memories_delete", auth: member, codes: accessCodes,
			operation: commanding((*Server).deleteMemory),
			about:     "Puts a memory into the trash, or with purge removes it for good.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/memories_restore", auth: member, codes: accessCodes,
			operation: exchanging((*Server).restoreMemory), about: "Takes a memory out of the trash.",
		},
		{
			audit:  auditRefusals,
			method: post, path: "/v1/memories_ping", longAnswer: true, auth: member,
			operation: exchanging((*Server).ping), about: "Which of at most 1,000 memories the caller could read.",
		},
		{
			audit:  auditRefusals,
			method: get, path: contentPath + "{memory_id}", auth: member,
			codes:     append([]Code{CodePreconditionFailed, CodeRangeNotSatisfiable, CodeDamaged}, accessCodes...),
			operation: operation{content: true, status: http.StatusOK, serve: (*Server).readContent},
			about:     "The content, whole or one range of it.",
		},

		{
			audit:  auditAlways,
			method: post, path: "/v1/capsules_create", auth: member, beginsNew: true,
			codes: []Code{CodeForbidden, CodeAlreadyExists}, operation: exchanging((*Server).createCapsule),
			about: "Makes a capsule.",
		},
		{
			audit:  auditAdmins,
			method: get, path: "/v1/capsules_read/{capsule_id}", auth: member, codes: accessCodes,
			operation: answering((*Server).readCapsule), about: "A capsule with its counters.",
		},
		{
			audit:  auditAdmins,
			method: get, path: "/v1/capsules_list", longAnswer: true, auth: member, query: []param{cursor, limit},
			operation: answering((*Server).listCapsules),
			about:     "The capsules that the caller has a role in; an admin sees all.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/capsules_update", auth: member, codes: accessCodes,
			operation: exchanging((*Server).updateCapsule),
			about:     "Changes what is given: name, MIME types, roles, or, for an admin, quotas.",
		},
		{
			audit:  auditAlways,
			method: post, path: "/v1/capsules_delete", auth: member,
			codes: append([]Code{CodeNotEmpty}, accessCodes...), operation: commanding((*Server).deleteCapsule),
			about: "Deletes an empty capsule.",
		},

		{
			audit:  auditRefusals,
			method: get, path: linkPath + "{link}", auth: linked,
			codes:     []Code{CodeNotFound, CodePreconditionFailed, CodeRangeNotSatisfiable, CodeDamaged, CodeResourceExhausted},
			operation: operation{content: true, status: http.StatusOK, serve: (*Server).readLink},
			about:     "The content of a read link. The link is the secret: it asks for no token.",
		},

		{
			audit:  auditNothing,
			method: get, path: ResourcePath, codes: []Code{CodeNotFound},
			operation: answering((*Server).protectedResource),
			about:     "At which issuer callers sign in (RFC 9728); 404 if there is none.",
		},
		{
			audit:  auditNothing,
			method: get, path: "/healthz", operation: answering((*Server).healthz), about: "The process is up.",
		},
		{
			audit:  auditNothing,
			method: get, path: "/readyz", operation: answering((*Server).readyz),
			about: "The stores answer, and the server is not draining.",
		},
		{
			audit:  auditNothing,
			method: get, path: "/openapi.json",
			operation: operation{
				out: reflect.TypeFor[map[string]any](), status: http.StatusOK, serve: (*Server).openapi,
			},
			about: "This document.",
		},
	}...)
}
