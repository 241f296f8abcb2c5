package audit

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// asciiWriter writes JSON with an escape for each character that is not printable ASCII. Outside of
// strings JSON has none. So nothing in a record moves the cursor of a terminal, changes the
// direction of its text, or looks like something else.
type asciiWriter struct{ to io.Writer }

func (w asciiWriter) Write(p []byte) (int, error) {
	if bytes.IndexFunc(p, escapes) < 0 {
		return w.to.Write(p)
	}
	var b bytes.Buffer
	for rest := p; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		rest = rest[n:]
		switch {
		case !escapes(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	if _, err := w.to.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escapes reports whether a character is escaped: all but printable ASCII and the end of the line.
func escapes(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }
