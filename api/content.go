package api

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"sluice/catalog"
	"sluice/upload"
)

const (
	// pieceBytes is how much of a content is written under one deadline.
	pieceBytes = 256 << 10
	// pieceMost is how much the system copies from a file in one go to who takes it fast: pieceBytes within pieceFast.
	pieceMost = 2 << 20
	pieceFast = 100 * time.Millisecond
)

// readContent answers a memory's bytes: all of them, or one range (RFC 9110 §14). A list of several ranges, one in another
// unit, or a malformed one is ignored, as the RFC allows; so no request costs more than the content once.
func (s *Server) readContent(c *call) error {
	id, err := c.memoryID()
	if err != nil {
		return err
	}
	f, err := s.cfg.Memories.Open(c.Context(), c.caller, id)
	if err != nil {
		return err
	}
	m := f.Memory
	h := c.Header()
	v := contentHeaders(h, m)
	switch v.conditions(c.Request.Header) {
	case http.StatusNotModified:
		c.WriteHeader(http.StatusNotModified)
		return nil
	case http.StatusPreconditionFailed:
		withhold(h)
		return &denial{code: CodePreconditionFailed, detail: "the content is not the one that If-Match or If-Unmodified-Since asks for"}
	}
	off, n, status := int64(0), m.Bytes, http.StatusOK
	if want := c.Request.Header.Values("Range"); len(want) == 1 && c.Method == http.MethodGet && v.ifRange(c.Request.Header) {
		first, count, ok := oneRange(want[0], m.Bytes)
		switch {
		case ok && count == 0:
			withhold(h)
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", m.Bytes))
			return fmt.Errorf("%w: %d bytes are there", errUnsatisfiable, m.Bytes)
		case ok:
			off, n, status = first, count, http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, m.Bytes))
		}
	}
	// Also where only the head is asked for: what is lost is told then too.
	body, err := f.Body(c.Context(), off, n)
	if err != nil {
		withhold(h)
		return err
	}
	defer body.Close()
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	c.WriteHeader(status)
	if c.Method == http.MethodHead || n == 0 {
		return nil
	}
	return s.send(c, body, n)
}

// send copies the content, holding the client to the minimum rate. An error here cuts the answer off, which the client sees.
func (s *Server) send(c *call, body io.Reader, n int64) error {
	to := &paced{c: c, allowed: s.cfg.RateWindow + time.Duration(float64(min(n, pieceBytes))/float64(s.cfg.MinRate)*float64(time.Second))}
	var err error
	if sender, ok := body.(upload.Sender); ok && c.ProtoMajor < 2 && c.TLS == nil {
		_, err = sender.Send(to)
	} else {
		_, err = io.CopyBuffer(to, io.LimitReader(body, n), make([]byte, min(n, pieceBytes)))
	}
	if err == nil && to.sent < n {
		err = io.ErrUnexpectedEOF
	}
	if err == nil || to.cut != nil {
		return to.cut
	}
	return fmt.Errorf("reading content: %w", err)
}

// paced writes an answer, each piece of pieceBytes at most within the time that is allowed.
type paced struct {
	c       *call
	allowed time.Duration
	sent    int64
	cut     error // the client's
}

func (p *paced) hurry() {
	_ = p.c.body.rc.SetWriteDeadline(time.Now().Add(p.allowed)) // where there is none, there is nothing to hold to
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	p.hurry()
	n, err := p.c.Write(b)
	if p.sent += int64(n); err != nil {
		p.cut = &cutError{err}
	}
	return n, err
}

// TakeFile implements upload.FileTaker. Who has taken a piece fast gets more in one go, under the deadline of one piece: who has had no more than that when it is over is
// too slow, and the others go on in single pieces.
func (p *paced) TakeFile(f io.ReadSeeker, n int64) (sent int64, err error) {
	for piece := int64(pieceBytes); sent < n; {
		began := time.Now()
		p.hurry()
		want := min(n-sent, piece)
		from := &io.LimitedReader{R: f, N: want}
		k, err := p.c.ReadFrom(from)
		sent, p.sent = sent+k, p.sent+k
		switch {
		case errors.Is(err, syscall.EIO):
			return sent, err // the disk's
		case errors.Is(err, os.ErrDeadlineExceeded) && piece > pieceBytes && k >= pieceBytes:
			// Where it was not the system that copied, more was read than was sent.
			if _, err := f.Seek(k-(want-from.N), io.SeekCurrent); err != nil {
				return sent, err
			}
		case err != nil:
			p.cut = &cutError{err}
			return sent, p.cut
		case k < want:
			return sent, nil
		}
		if err == nil && time.Since(began)*pieceBytes <= pieceFast*time.Duration(want) {
			piece = min(2*piece, pieceMost)
		} else {
			piece = pieceBytes
		}
	}
	return sent, nil
}

// withhold takes away the headers that describe the content, and not a refusal.
func withhold(h http.Header) {
	for _, name := range []string{"Etag", "Last-Modified", "Repr-Digest", "Content-Type", "Content-Disposition", "Accept-Ranges", "Content-Range"} {
		delete(h, name)
	}
}

// sameHeaders are those that every content has, under their canonical names. Nobody changes the lists, and what is added to one goes into a copy.
var sameHeaders = map[string][]string{
	"Accept-Ranges": {"bytes"},
	// Always asked again: the right to read may end.
	"Cache-Control":                {"private, no-cache"},
	"Content-Security-Policy":      {"sandbox; default-src 'none'; frame-ancestors 'none'"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Referrer-Policy":              {"no-referrer"},
}

// validators tell one content from another (RFC 9110 §8.8). A memory's never changes, so that both are strong.
type validators struct {
	etag     string
	modified time.Time // zero: not told
}

// contentHeaders says what the content is, and keeps a browser from ever taking it for a part of this origin.
func contentHeaders(h http.Header, m catalog.Memory) validators {
	v := [...]string{
		`"sha256:` + hex.EncodeToString(m.SHA256[:]) + `"`,
		"sha-256=:" + base64.StdEncoding.EncodeToString(m.SHA256[:]) + ":",
		m.MIME,
		disposition(m.Name, m.MIME),
		m.Created.UTC().Format(http.TimeFormat),
	}
	maps.Copy(h, sameHeaders)
	h["Etag"], h["Repr-Digest"], h["Content-Type"], h["Content-Disposition"] = v[0:1:1], v[1:2:2], v[2:3:3], v[3:4:4]
	if m.Created.After(time.Now()) { // the clock was wrong then or is now (RFC 9110 §8.8.2.1)
		return validators{etag: v[0]}
	}
	h["Last-Modified"] = v[4:5:5]
	return validators{v[0], m.Created.Truncate(time.Second)}
}

// conditions evaluates a read's preconditions in the order of RFC 9110 §13.2.2, and gives the status that they ask for; 0 where the content is to be given. A date that is malformed is
// ignored, and one that there is nothing to compare with.
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

// matches compares with a list of entity tags (RFC 9110 §8.8.3.2).
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

// ifRange reports whether a range may be given (RFC 9110 §13.1.5): another date, a weak or another tag says that the client has something else.
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

// disposition gives Content-Disposition with both forms of the name (RFC 6266 §4.3, RFC 8187).
func disposition(name, kind string) string {
	form := "attachment"
	if passive(kind) {
		form = "inline"
	}
	plain, encoded := name, name
	if strings.ContainsFunc(name, special) {
		safe := strings.Map(func(r rune) rune {
			if r == '/' || r == '\\' || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
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

// special reports whether a rune may differ between the forms of a name.
func special(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// oneRange reads a Range field with one byte range. ok is false where it is to be ignored; n is 0 where it can't be satisfied.
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
		n = min(atMost(to), size)
		return size - n, n, true
	}
	off, last := atMost(from), size-1
	if to != "" {
		if last = atMost(to); last < off {
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

// atMost reads digits; what 63 bits don't hold is past every end anyway.
func atMost(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1
	}
	return n
}
