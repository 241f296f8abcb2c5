package api

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// checkQuery reads the query. It refuses a parameter that the route doesn't have, or that is there
// twice. So a misspelt option is never silently ignored.
func (c *call) checkQuery(params []param) error {
	q, err := url.ParseQuery(c.req.URL.RawQuery)
	if err != nil {
		return invalid("the query", "is malformed")
	}
	c.query = make(map[string]string, len(q))
	for name, values := range q {
		known := slices.ContainsFunc(params, func(p param) bool { return p.name == name })
		switch {
		case !known:
			return &refusal{code: CodeInvalidArgument, detail: fmt.Sprintf("there is no query parameter %.64q", name)}
		case len(values) > 1:
			return invalid(name, "is there twice")
		}
		c.query[name] = values[0]
	}
	return nil
}

// flag reads a query parameter that is true or false. An absent one is false.
func (c *call) flag(name string) (bool, error) {
	switch v, ok := c.query[name]; {
	case !ok || v == "false":
		return false, nil
	case v == "true":
		return true, nil
	}
	return false, invalid(name, "must be true or false")
}

// limit reads the page size.
func (c *call) limit() (int, error) {
	v, ok := c.query["limit"]
	if !ok {
		return defaultLimit, nil
	}
	n, ok := decimal(v)
	if !ok || n < 1 || n > maxLimit {
		return 0, invalid("limit", fmt.Sprintf("must be 1 to %d", maxLimit))
	}
	return int(n), nil
}

// decimal reads a number as the wire writes it: digits alone, and no zeros in front.
func decimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// sessionID reads the path's session id. A malformed one names nothing.
func (c *call) sessionID() (session.SessionID, error) {
	id, err := session.ParseID(c.req.PathValue("session_id"))
	if err != nil {
		return 0, errNotFound
	}
	return id, nil
}

// memoryID reads the path's memory id. A malformed one names nothing.
func (c *call) memoryID() (catalog.MemoryID, error) {
	id, ok := memoryID(c.req.PathValue("memory_id"))
	if !ok {
		return id, errNotFound
	}
	return id, nil
}

// put returns the qualifiers of a put: its length, its digests, and replace if the route has it.
func (c *call) put() (p upload.Put, err error) {
	p = upload.Put{
		Length: c.req.ContentLength, SHA256: c.sha256, CRC32C: c.crc32c,
		Whole: c.body.digests.onlyAtEnd(), Multiplexed: c.req.ProtoMajor >= 2,
	}
	p.Replace, err = c.flag("replace")
	return p, err
}

// index reads a number of the path, up to 64 bits.
func (c *call) index(name string) (int64, error) {
	n, ok := decimal(c.req.PathValue(name))
	if !ok {
		return 0, invalid(name, fmt.Sprintf("must be a decimal number of 0 to %d", int64(math.MaxInt64)))
	}
	return n, nil
}
