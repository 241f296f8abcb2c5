package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sluice/api"
)

// print writes one result: v as JSON, or a line for people. Strings among args that came from
// elsewhere must have been through clean.
func (e *env) print(v any, format string, args ...any) {
	line := fmt.Appendf(nil, format, args...)
	var err error
	if e.json {
		line, err = json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	}
	if err == nil {
		_, err = e.stdout.Write(append(line, '\n'))
	}
	if err != nil && e.outErr == nil {
		e.outErr = err
	}
}

// failure is an error as JSON.
type failure struct {
	Error struct {
		Code      string `json:"code,omitzero"`
		Status    int    `json:"status,omitzero"`
		Detail    string `json:"detail"`
		Of        string `json:"of,omitzero"` // the file or id that it is about
		RequestID string `json:"request_id,omitzero"`
	} `json:"error"`
}

// fail reports an error, on standard error.
func (e *env) fail(err error) { e.failOf("", err) }

// failOf reports the error of one file of many.
func (e *env) failOf(file string, err error) {
	if e.json {
		var f failure
		f.Error.Detail, f.Error.Of = detail(err), file
		var refused *api.Error
		if errors.As(err, &refused) {
			f.Error.Code, f.Error.Status, f.Error.RequestID = string(refused.Code), refused.Status, refused.RequestID
			if refused.Code != "" {
				f.Error.Detail = strings.TrimPrefix(f.Error.Detail, string(refused.Code)+": ")
			}
		}
		if b, err := json.Marshal(f, jsontext.AllowInvalidUTF8(true)); err == nil {
			fmt.Fprintf(e.stderr, "%s\n", b)
		}
		return
	}
	var step *fs.PathError
	if file != "" && errors.As(err, &step) && step.Path == file {
		err = step.Err // the file is named anyway
	}
	if file != "" {
		file = clean(file) + ": "
	}
	fmt.Fprintf(e.stderr, "sluice: %s%s\n", file, cleanLines(detail(err)))
}

// detail is an error's text for a user. It names the server that could not be reached instead of
// the request, and says what to do about a token.
func detail(err error) string {
	s := err.Error()
	var unanswered *url.Error
	if errors.As(err, &unanswered) {
		server := unanswered.URL
		if u, err := url.Parse(server); err == nil {
			server = u.Scheme + "://" + u.Host
		}
		s = strings.Replace(s, unanswered.Error(), fmt.Sprintf("can't reach %s: %v", server, unanswered.Err), 1)
	}
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeUnauthenticated {
		s += "; the server does not know the one that was given, or it has ended (see --token-file, SLUICE_TOKEN)"
	}
	return s
}

// report writes a message that programs may want too, on standard error: v as JSON, or a line for
// people.
func (e *env) report(v any, format string, args ...any) {
	if b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.Deterministic(true)); e.json && err == nil {
		fmt.Fprintf(e.stderr, "%s\n", b)
		return
	}
	e.say(format, args...)
}

// say writes a message for people, on standard error.
func (e *env) say(format string, args ...any) {
	if !e.json {
		fmt.Fprintf(e.stderr, format+"\n", args...)
	}
}

// clean makes a name from elsewhere harmless for a terminal: it shows the code of each character
// that can't be printed.
func clean(s string) string {
	if strings.IndexFunc(s, odd) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, "\\x%02x", s[i])
		case odd(r):
			fmt.Fprintf(&b, "\\u{%x}", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// odd reports whether a character is a control character, changes the direction of the text behind
// it, or shows nothing.
func odd(r rune) bool { return r != ' ' && !unicode.IsPrint(r) && r != '\u200d' && r != '\ufe0f' }

func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "; ")
}

// ofCapsule says that the capsule is missing, if the server answers that something is.
func ofCapsule(id string, err error) error {
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeNotFound {
		return fmt.Errorf("capsule %s: %w", id, err)
	}
	return err
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n), []string{"kB", "MB", "GB", "TB", "PB"}
	for i := 0; ; i++ {
		if f /= 1000; f < 999.95 || i == len(units)-1 {
			return fmt.Sprintf("%.1f %s", f, units[i])
		}
	}
}

// memory prints one memory.
func (e *env) memory(m api.Memory) {
	name := m.Name
	if m.Path != "" {
		name = m.Path + "/" + name
	}
	e.print(m, "%s  %s  %12s  %s", m.MemoryID, m.CreatedAt.Format("2006-01-02 15:04"), size(m.Bytes), clean(name))
}
