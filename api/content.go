package api

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sluice/access"
	"sluice/catalog"
)

// blockLarge is how many bytes of a long content are read, compared and written under one deadline,
// and blockSmall how many of a short one. blockMin is the size if the contents that are being sent
// hold much already.
const blockLarge, blockSmall, blockMin = 256 << 10, 64 << 10, 4 << 10

// readsAfter is how many bytes are written when it is certain that the client reads: the system
// keeps a few MiB at most.
const readsAfter = 8 << 20

// readContent answers with a memory's bytes: all of them, or one range (RFC 9110 §14). As the RFC
// allows, it ignores a list of several ranges, a range in another unit, and a malformed one. So no
// request costs more than the content once.
func (s *Server) readContent(c *call) error {
	id, err := c.memoryID()
	if err != nil {
		return err
	}
	return s.serveContent(c, id)
}

// serveContent answers a read of a memory's content.
func (s *Server) serveContent(c *call, id catalog.MemoryID) error {
	f, err := s.cfg.Memories.Open(c.req.Context(), c.caller, id)
	if err != nil {
		return err
	}
	m := f.Memory
	s.watcher.narrow(c.revocable.watched, access.Claim{Caller: c.caller, Action: access.Read, Capsule: m.Capsule})
	h := c.Header()
	v := contentHeaders(h, m, s.machine.now())
	switch v.conditions(c.req.Header) {
	case http.StatusNotModified:
		c.WriteHeader(http.StatusNotModified)
		return nil
	case http.StatusPreconditionFailed:
		removeContentHeaders(h)
		return &refusal{
			code:   CodePreconditionFailed,
			detail: "the content is not the one that If-Match or If-Unmodified-Since asks for",
		}
	}
	off, n, status := int64(0), m.Bytes, http.StatusOK
	want := c.req.Header.Values("Range")
	if len(want) == 1 && c.req.Method == http.MethodGet && v.ifRange(c.req.Header) {
		first, count, ok := oneRange(want[0], m.Bytes)
		switch {
		case ok && count == 0:
			removeContentHeaders(h)
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", m.Bytes))
			return fmt.Errorf("%w: %d bytes are there", errUnsatisfiable, m.Bytes)
		case ok:
			off, n, status = first, count, http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, m.Bytes))
		}
	}
	giveBack, err := s.promise(c, n, m.Bytes)
	if err != nil {
		removeContentHeaders(h)
		return err
	}
	defer giveBack()
	// This is done for a HEAD too: it must tell of missing content as well.
	body, err := f.Body(c.req.Context(), off, n)
	if err != nil {
		removeContentHeaders(h)
		return err
	}
	defer body.Close()
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if c.req.Method == http.MethodHead || n == 0 {
		c.WriteHeader(status)
		return nil
	}
	return s.sendContent(c, body, n, status)
}

// sendContent copies the content, and holds the client to the minimum rate. It answers nothing
// before the first block is there and was compared. A later error cuts the answer off, and the
// client sees that.
func (s *Server) sendContent(c *call, body io.Reader, n int64, status int) error {
	buf, free := s.block(c, n)
	defer free()
	c.revocable.sending.Store(true)
	allowed := s.cfg.RateWindow + time.Duration(float64(len(*buf))/float64(s.cfg.MinRate)*float64(time.Second))
	for sent := int64(0); sent < n; {
		k, err := body.Read((*buf)[:min(int64(len(*buf)), n-sent)])
		if err != nil {
			if c.status == 0 {
				removeContentHeaders(c.Header())
			}
			return fmt.Errorf("reading content: %w", err)
		}
		if c.status == 0 {
			c.WriteHeader(status)
		}
		// A writer without deadlines can't hold the client to the rate.
		_ = c.body.rc.SetWriteDeadline(s.machine.now().Add(allowed))
		if err := c.revoked(); err != nil { // its deadline may have been the one before
			return err
		}
		if _, err := c.Write((*buf)[:k]); err != nil {
			return &cutError{err}
		}
		if sent += int64(k); sent >= readsAfter {
			c.noteReads()
		}
	}
	return nil
}

// noteReads notes that the client reads. From then on the system may keep more of its answers,
// which is faster.
func (c *call) noteReads() {
	if conn := connOf(c.req); conn != nil && conn.clientReads.CompareAndSwap(false, true) {
		limitUnsent(conn.Conn, 0)
	}
}

// block returns memory for a block. It is smaller if the principal, or all together, hold much
// while they wait for their clients.
func (s *Server) block(c *call, n int64) (buf *[]byte, free func()) {
	principal, size, pool := c.usage.principal, int64(blockLarge), &s.largeBlocks
	if n <= 4*blockSmall {
		size, pool = blockSmall, &s.smallBlocks
	}
	if n <= blockMin || s.limits.blocks.acquire(principal, size) != nil {
		small := make([]byte, min(n, blockMin))
		return &small, func() {}
	}
	buf, ok := pool.Get().(*[]byte)
	if !ok {
		b := make([]byte, size)
		buf = &b
	}
	return buf, func() {
		pool.Put(buf)
		s.limits.blocks.release(principal, size)
	}
}

// removeContentHeaders removes the headers that describe the content, and not a refusal.
func removeContentHeaders(h http.Header) {
	for _, name := range []string{
		"Etag", "Last-Modified", "Repr-Digest", "Content-Type", "Content-Disposition", "Accept-Ranges", "Content-Range",
	} {
		delete(h, name)
	}
}

// commonHeaders are the headers of every content, under their canonical names. Nothing changes the
// lists; a header with more values gets a copy.
var commonHeaders = map[string][]string{
	"Accept-Ranges": {"bytes"},
	// Clients must ask again each time: the right to read may end.
	"Cache-Control":                {"private, no-cache"},
	"Content-Security-Policy":      {"sandbox; default-src 'none'; frame-ancestors 'none'"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Referrer-Policy":              {"no-referrer"},
}

// validators tell one content from another (RFC 9110 §8.8). A memory's content never changes, so
// both are strong.
type validators struct {
	etag     string
	modified time.Time // zero: not sent
}

// contentHeaders describes the content, and keeps a browser from ever taking it for a part of this
// origin.
func contentHeaders(h http.Header, m catalog.Memory, now time.Time) validators {
	v := [...]string{
		`"sha256:` + hex.EncodeToString(m.SHA256[:]) + `"`,
		"sha-256=:" + base64.StdEncoding.EncodeToString(m.SHA256[:]) + ":",
		m.MIME,
		disposition(m.Name, m.MIME),
		m.Created.UTC().Format(http.TimeFormat),
	}
	maps.Copy(h, commonHeaders)
	h["Etag"], h["Repr-Digest"], h["Content-Type"], h["Content-Disposition"] = v[0:1:1], v[1:2:2], v[2:3:3], v[3:4:4]
	if m.Created.After(now) { // the clock was wrong then or is now (RFC 9110 §8.8.2.1)
		return validators{etag: v[0]}
	}
	h["Last-Modified"] = v[4:5:5]
	return validators{v[0], m.Created.Truncate(time.Second)}
}

// conditions evaluates a read's preconditions in the order of RFC 9110 §13.2.2. It returns the
// status that they ask for, or 0 if the content is to be given. It ignores a malformed date, and a
// date that can't be compared with anything.
func (v validators) conditions(h http.Header) int {
	if tags := h.Values("If-Match"); len(tags) > 0 {
		if !v.matches(tags, false) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := v.date(h, "If-Unmodified-Since"); ok && v.modified.After(t) {
		return http.StatusPreconditionFailed
	}
	if tags := h.Values("If-None-Match"); len(tags) > 0 {
		if v.matches(tags, true) {
			return http.StatusNotModified
		}
	} else if t, ok := v.date(h, "If-Modified-Since"); ok && !v.modified.After(t) {
		return http.StatusNotModified
	}
	return 0
}

// date reads a field that is one date.
func (v validators) date(h http.Header, field string) (t time.Time, ok bool) {
	lines := h.Values(field)
	if len(lines) != 1 || v.modified.IsZero() {
		return t, false
	}
	t, err := http.ParseTime(lines[0])
	return t, err == nil
}

// matches compares v with a list of entity tags (RFC 9110 §8.8.3.2).
func (v validators) matches(lines []string, weak bool) bool {
	for _, line := range lines {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimSpace(tag)
			if weak {
				tag = strings.TrimPrefix(tag, "W/")
			}
			if tag == "*" || tag == v.etag {
				return true
			}
		}
	}
	return false
}

// ifRange reports whether a range may be given (RFC 9110 §13.1.5). Another date, another tag or a
// weak one says that the client has another content.
func (v validators) ifRange(h http.Header) bool {
	lines := h.Values("If-Range")
	if len(lines) == 0 {
		return true
	}
	t, ok := v.date(h, "If-Range")
	return len(lines) == 1 && (lines[0] == v.etag || ok && t.Equal(v.modified))
}

// passive reports whether a browser shows this type without ever running anything of it.
func passive(kind string) bool {
	media, _, err := mime.ParseMediaType(kind)
	if err != nil || strings.HasSuffix(media, "+xml") {
		return false
	}
	kind, _, _ = strings.Cut(media, "/")
	return kind == "image" || kind == "audio" || kind == "video" || media == "text/plain" || media == "application/pdf"
}

// disposition makes Content-Disposition with both forms of the name (RFC 6266 §4.3, RFC 8187).
func disposition(name, kind string) string {
	form := "attachment"
	if passive(kind) {
		form = "inline"
	}
	plain, encoded := name, name
	if strings.ContainsFunc(name, needsEncoding) {
		safe := strings.Map(func(r rune) rune {
			if r == '/' || r == '\\' || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) ||
				r == unicode.ReplacementChar {
				return '_'
			}
			return r
		}, name)
		plain = strings.Map(func(r rune) rune {
			if r > '~' || r == '"' || r == '%' {
				return '_'
			}
			return r
		}, safe)
		encoded = strings.ReplaceAll(url.QueryEscape(safe), "+", "%20")
	}
	return form + `; filename="` + plain + `"; filename*=UTF-8''` + encoded
}

// needsEncoding reports whether a rune may differ between the two forms of a name.
func needsEncoding(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// oneRange reads a Range field with one byte range. ok is false if the field is to be ignored. n is
// 0 if the range can't be satisfied.
func oneRange(field string, size int64) (off, n int64, ok bool) {
	unit, spec, found := strings.Cut(field, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return 0, 0, false
	}
	from, to, found := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !digits(from) || !digits(to) || from+to == "" {
		return 0, 0, false
	}
	if from == "" {
		n = min(parseSaturated(to), size)
		return size - n, n, true
	}
	off, last := parseSaturated(from), size-1
	if to != "" {
		if last = parseSaturated(to); last < off {
			return 0, 0, false // reversed: malformed
		}
		last = min(last, size-1)
	}
	if off >= size {
		return 0, 0, true
	}
	return off, last - off + 1, true
}

func digits(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// parseSaturated reads digits. A number of more than 63 bits is past every end anyway.
func parseSaturated(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1
	}
	return n
}
