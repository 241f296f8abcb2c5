package upload

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"sluice/access"
	"sluice/catalog"
)

// sniffBytes is how many bytes from the beginning of a content are looked at.
const sniffBytes = 3072

// Sniffed is the type that the first bytes of a content show. The zero value shows nothing.
type Sniffed struct{ m *mimetype.MIME }

// Sniff looks at the first bytes of a content, sniffBytes at most.
func Sniff(head []byte) Sniffed {
	return Sniffed{mimetype.Detect(head[:min(len(head), sniffBytes)])}
}

// sniffContent sniffs a stored content. It reads the beginning of the first extent once.
func (u *Service) sniffContent(ctx context.Context, content catalog.Content) (Sniffed, error) {
	if len(content.Extents) == 0 {
		return Sniff(content.Inline), nil
	}
	head := make([]byte, min(content.Bytes, sniffBytes))
	r, err := u.cfg.Blobs.Read(ctx, content.Extents, 0, int64(len(head)))
	if err != nil {
		return Sniffed{}, err
	}
	_, err = io.ReadFull(r, head)
	return Sniff(head), errors.Join(err, r.Close())
}

// Veto gives a *catalog.MIMEError if the first bytes of a content contradict one of the lists of
// patterns. All of the lists allow the declared type. docs/adr/0028-mime-types.md has the rule and
// its reasons: what is sniffed counts only where it is certain that the content is not what was
// declared.
func (s Sniffed) Veto(declared string, lists ...[]string) error {
	if s.m == nil || s.unknown() {
		return nil
	}
	for _, patterns := range lists {
		if !s.allowed(patterns) && !s.maybe(declared) {
			return &catalog.MIMEError{Declared: declared, Sniffed: essence(s.m.String()), Allowed: patterns}
		}
	}
	return nil
}

// unknown reports whether the bytes show no type: any bytes, or any text.
func (s Sniffed) unknown() bool { return s.m.Is("application/octet-stream") || s.m.Is("text/plain") }

// allowed reports whether a list allows the sniffed type, under any of its names.
func (s Sniffed) allowed(patterns []string) bool {
	for _, p := range patterns {
		if s.m.Is(p) {
			return true
		}
	}
	return catalog.MIMEAllowed(patterns, s.m.String())
}

// maybe reports whether the content may be of the declared type nevertheless.
func (s Sniffed) maybe(declared string) bool {
	declared = essence(declared)
	found, syntax := essence(s.m.String()), suffixed(declared)
	known := mimetype.Lookup(declared)
	switch {
	case isKindOf(s.m, declared), known != nil && isKindOf(known, found), syntax != "" && s.m.Is(syntax):
		return true
	case known == nil:
		return topLevel(found) == topLevel(declared) || isOneOf(s.m, bases())
	}
	family := familyOf(s.m)
	return family != "" && family == familyOf(known)
}

// isKindOf reports whether m, or a type of which it is a special case, has the name.
func isKindOf(m *mimetype.MIME, name string) bool {
	for ; m != nil; m = m.Parent() {
		if m.Is(name) {
			return true
		}
	}
	return false
}

func isOneOf(m *mimetype.MIME, names []string) bool {
	for _, name := range names {
		if m.Is(name) {
			return true
		}
	}
	return false
}

// bases lists the formats on which others are built, of which sniffing may know nothing.
func bases() []string {
	return []string{
		"application/zip", "application/x-ole-storage", "application/gzip", "application/ogg", "application/json",
		"application/vnd.sqlite3", "application/x-tar", "application/cbor", "application/zlib", "image/tiff",
		"text/xml", "video/mp4", "video/x-matroska", "video/x-ms-asf",
	}
}

// suffixed names the format in which a type is written, by its suffix (RFC 6839, section 3); "" if
// there is none.
func suffixed(name string) string {
	switch suffix := name[strings.LastIndex(name, "+")+1:]; suffix {
	case "xml":
		return "text/xml"
	case "json", "zip", "gzip", "cbor":
		return "application/" + suffix
	}
	return ""
}

// familyOf gives the family of types which sniffing takes for each other; "" if there is none.
func familyOf(m *mimetype.MIME) string {
	for ; m != nil; m = m.Parent() {
		switch essence(m.String()) {
		case "video/mp4", "video/quicktime":
			return "ISO base media"
		case "application/ogg":
			return "Ogg"
		case "video/webm", "video/x-matroska":
			return "Matroska"
		case "application/x-elf":
			return "ELF"
		case "application/java-archive", "application/vnd.android.package-archive":
			return "Java archive"
		}
	}
	return ""
}

// essence is a type without its parameters, in lower case.
func essence(mime string) string {
	name, _, _ := strings.Cut(mime, ";")
	return strings.ToLower(strings.TrimSpace(name))
}

func topLevel(name string) string {
	major, _, _ := strings.Cut(name, "/")
	return major
}

// errUnsniffed: a list of types bounds the content, and it has not been sniffed yet.
var errUnsniffed = errors.New("the content has not been sniffed")

// takes decides, in the transaction that publishes a content, whether the content's first bytes
// contradict a list of patterns. It gives errUnsniffed if that depends on them, and they were not
// looked at. Whether the capsule takes the declared type is catalog.Publish's to say, and whether a
// ticket does is fitsTicket's.
func takes(s Sniffed, declared string, lists ...[]string) error {
	bounds := func(patterns []string) bool { return len(patterns) > 0 }
	if s.m == nil && slices.ContainsFunc(lists, bounds) {
		return errUnsniffed
	}
	return s.Veto(declared, lists...)
}

// takersOf gives those whose lists of types bound an upload of the caller: the capsule, and the
// caller's ticket, the zero value if it has none.
func takersOf(
	r catalog.Reader, c access.Caller, id string,
) (capsule catalog.Capsule, ticket catalog.Grant, err error) {
	if capsule, err = catalog.Capsules.Get(r, catalog.Name(id)); err == nil {
		ticket, err = ticketOf(r, c)
	}
	return capsule, ticket, err
}

// sniff sniffs the contents of sessions that are verified, if their capsule or the caller's ticket
// has a list of types.
func (u *Service) sniff(ctx context.Context, c access.Caller, vs ...*verified) error {
	for _, v := range vs {
		var (
			capsule catalog.Capsule
			ticket  catalog.Grant
		)
		err := u.cfg.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			capsule, ticket, err = takersOf(r, c, v.n.Capsule)
			return err
		})
		if err == nil && len(capsule.MIMETypes)+len(ticket.MIME) > 0 {
			v.sniffed, err = u.sniffContent(ctx, catalog.Content{Bytes: v.length, Extents: v.recorded})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commitSniffed runs a commit. If it gives errUnsniffed, since the capsule has got a list of types
// meanwhile, the contents are sniffed and it runs again.
func (u *Service) commitSniffed(
	ctx context.Context, c access.Caller, vs []*verified, commit func(catalog.Tx) error,
) error {
	err := u.cfg.Catalog.Update(ctx, commit)
	if errors.Is(err, errUnsniffed) {
		if err = u.sniff(ctx, c, vs...); err == nil {
			err = u.cfg.Catalog.Update(ctx, commit)
		}
	}
	return err
}
