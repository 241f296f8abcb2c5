package api

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/jsonschema-go/jsonschema"
)

func (s *Server) openapi(c *call) error {
	h := c.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(s.document)))
	c.WriteHeader(http.StatusOK)
	if c.req.Method != http.MethodHead {
		c.send(s.document)
	}
	return nil
}

// obj is a JSON object of the document.
type obj = map[string]any

// commonCodes are the codes that any operation may answer.
// Unauthenticated is among them, as no URL may have a token.
var commonCodes = []Code{
	CodeInvalidArgument, CodeUnauthenticated, CodeMethodNotAllowed, CodeResourceExhausted, CodeInternal,
	CodeUnavailable,
}

// document makes the OpenAPI 3.1 description of the routes. Its schemas come from the wire types,
// so they can't drift apart.
func document(table []route) ([]byte, error) {
	schemas := schemaSet{}
	problem, err := schemas.ref(reflect.TypeFor[Problem](), false)
	if err != nil {
		return nil, err
	}
	paths := obj{}
	for _, r := range table {
		op, err := describe(r, schemas, problem)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		item, _ := paths[r.path].(obj)
		if item == nil {
			item = obj{}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = op
		if r.content {
			head, err := describe(r, schemas, problem)
			if err != nil {
				return nil, err
			}
			head["operationId"] = op["operationId"].(string) + "_head"
			delete(head["responses"].(obj)["200"].(obj), "content")
			item["head"] = head
		}
	}
	return json.Marshal(obj{
		"openapi":           "3.1.0",
		"jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
		"info": obj{
			"title": "Sluice", "version": "1",
			"description": "Uploads that survive: chunks in any order, durable when acknowledged, " +
				"verified when finished.",
			"license": obj{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []any{obj{"url": "/"}},
		"paths":      paths,
		"components": obj{"schemas": schemas, "securitySchemes": obj{"token": obj{"type": "http", "scheme": "bearer"}}},
	}, json.Deterministic(true))
}

var inPath = regexp.MustCompile(`\{(\w+)\}`)

func describe(r route, schemas schemaSet, problem obj) (obj, error) {
	op := obj{"operationId": operationID(r), "summary": r.about, "tags": []any{tag(r.path)}}
	if r.auth <= linked {
		op["security"] = []any{}
	} else {
		op["security"] = []any{obj{"token": []any{}}}
	}
	if r.auth == admin {
		op["description"] = "Principals with the admin right only."
	}
	op["parameters"] = parameters(r)
	switch {
	case r.raw:
		op["requestBody"] = obj{"content": obj{"*/*": obj{"schema": obj{}}}}
	case r.in != nil:
		in, err := schemas.ref(r.in, true)
		if err != nil {
			return nil, err
		}
		op["requestBody"] = obj{
			"required": r.in != reflect.TypeFor[Empty](), "content": obj{"application/json": obj{"schema": in}},
		}
	}
	good := obj{"description": http.StatusText(r.status)}
	headers := obj{"X-Request-Id": header("the request's id, which the log has too")}
	if r.header != "" {
		headers[r.header] = header(r.headerAbout)
	}
	good["headers"] = headers
	responses := obj{strconv.Itoa(r.status): good}
	switch {
	case r.content:
		raw := obj{"*/*": obj{"schema": obj{}}}
		good["content"] = raw
		headers["ETag"] = header("sha256:… in quotes")
		headers["Repr-Digest"] = header("RFC 9530")
		headers["Content-Disposition"] = header("RFC 6266")
		headers["Last-Modified"] = header("when the memory was made; its content never changes")
		responses["206"] = obj{
			"description": "One range", "headers": obj{"Content-Range": header("RFC 9110 §14.4")}, "content": raw,
		}
		responses["304"] = obj{"description": "Not modified"}
	case r.out != nil:
		out, err := schemas.ref(r.out, false)
		if err != nil {
			return nil, err
		}
		good["content"] = obj{"application/json": obj{"schema": out}}
	}
	for status, codes := range errorResponses(r) {
		responses[status] = obj{
			"description": strings.Join(codes, ", "),
			"content":     obj{"application/problem+json": obj{"schema": problem}},
		}
	}
	op["responses"] = responses
	return op, nil
}

func header(about string) obj { return obj{"description": about, "schema": obj{"type": "string"}} }

// errorResponses groups the codes of a route by status.
func errorResponses(r route) map[string][]string {
	codes := append(slices.Clone(commonCodes), r.codes...)
	if r.auth == admin {
		codes = append(codes, CodeForbidden)
	}
	if r.in != nil {
		codes = append(codes, CodeTooLarge, CodeUnsupportedMediaType, CodeChecksumMismatch, CodeTimeout)
	}
	out := map[string][]string{}
	for _, code := range codes {
		status := strconv.Itoa(responses[code].status)
		if !slices.Contains(out[status], string(code)) {
			out[status] = append(out[status], string(code))
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

func parameters(r route) []any {
	out := []any{}
	for _, m := range inPath.FindAllStringSubmatch(r.path, -1) {
		schema := obj{"type": "string"}
		if m[1] == "chunk_idx" || m[1] == "offset" {
			schema = obj{"type": "integer", "minimum": 0}
		}
		out = append(out, obj{"name": m[1], "in": "path", "required": true, "schema": schema})
	}
	for _, p := range r.query {
		schema := obj{"type": p.kind}
		if p.enum != nil {
			schema["enum"] = p.enum
		}
		if p.name == "limit" {
			schema["minimum"], schema["maximum"] = 1, maxLimit
		}
		out = append(out, obj{"name": p.name, "in": "query", "description": p.about, "schema": schema})
	}
	if r.raw || r.in != nil {
		for _, name := range digestFields {
			about := "of the body, compared before anything is done: sha-256, sha-512, crc32c, md5 or sha " +
				"(RFC 9530, 3230, 1864); also in an announced trailer"
			out = append(out, obj{"name": name, "in": "header", "description": about, "schema": obj{"type": "string"}})
		}
	}
	if r.content {
		for _, name := range conditionFields {
			out = append(out, obj{
				"name": name, "in": "header", "description": "RFC 9110", "schema": obj{"type": "string"},
			})
		}
	}
	return out
}

// operationID is the frozen name of the operation.
func operationID(r route) string {
	name := strings.TrimPrefix(strings.TrimPrefix(r.path, "/v1"), "/")
	name, rest, _ := strings.Cut(name, "/")
	if rest == "{name}" {
		name += "_named"
	}
	return strings.TrimSuffix(name, ".json")
}

func tag(path string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/"), "_")
	switch name {
	case "upload", "uploads":
		return "uploads"
	case "memories", "capsules", "sessions":
		return name
	}
	return "server"
}

// schemaSet has the document's components.
type schemaSet map[string]*jsonschema.Schema

// ref returns a reference to a wire type's schema. A request's schema is closed: it names all that
// may be in it. An answer's may grow.
func (set schemaSet) ref(t reflect.Type, closed bool) (obj, error) {
	if t.Kind() == reflect.Map {
		return obj{"type": "object"}, nil
	}
	if set[t.Name()] == nil {
		schema, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
			reflect.TypeFor[Time](): {Type: "string", Format: "date-time"},
		}})
		if err != nil {
			return nil, err
		}
		tidy(schema, closed)
		if closed {
			shapeOf(t).bound(schema)
		}
		set[t.Name()] = schema
	}
	return obj{"$ref": "#/components/schemas/" + t.Name()}, nil
}

// tidy makes the schema say what the wire does: an array is never null, and an answer's object may
// have more members.
func tidy(s *jsonschema.Schema, closed bool) {
	if s == nil {
		return
	}
	if i := slices.Index(s.Types, "null"); i >= 0 && slices.Contains(s.Types, "array") {
		s.Type, s.Types = "array", nil
	}
	for _, p := range s.Properties {
		tidy(p, closed)
	}
	tidy(s.Items, closed)
	if s.AdditionalProperties != nil && s.AdditionalProperties.Not == nil {
		tidy(s.AdditionalProperties, closed)
	} else if !closed {
		s.AdditionalProperties = nil
	}
}

// bound adds to a request's schema what its shape refuses: a list that is too long, and a string
// with another number of hex digits.
func (s *shape) bound(schema *jsonschema.Schema) {
	for _, m := range s.members {
		p := schema.Properties[m.name]
		if m.elem != nil {
			p.MaxItems = &m.maxElems
			m.elem.bound(p.Items)
		}
		m.bound(p)
	}
	if s.hexDigits > 0 {
		schema.Pattern = fmt.Sprintf("^[0-9a-fA-F]{%d}$", s.hexDigits)
	}
}
