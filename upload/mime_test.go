package upload_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/blob"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

const (
	html = "<!DOCTYPE html><html><script>alert(1)</script></html>"
	png  = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
	tiff = "II*\x00\x08\x00\x00\x00\x0c\x00\x00\x01\x04\x00"
	jpeg = "\xff\xd8\xff\xe0\x00\x10JFIF\x00"
	exe  = "MZ\x90\x00\x03\x00\x00\x00"
	m4a  = "\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42isom\x00\x00\x00\x00"
	mp4  = "\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"
	heic = "\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
	pdf  = "%PDF-1.7\n"
	xml  = `<?xml version="1.0"?><note>a</note>`
	rar  = "Rar!\x1a\x07\x01\x00"
	ole  = "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
	docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	docm = "application/vnd.ms-word.document.macroEnabled.12"
	xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
)

// zipped is a zip with files of these names.
func zipped(names ...string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		f, _ := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		_, _ = f.Write([]byte("x"))
	}
	_ = z.Close()
	return b.String()
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

// The rule of docs/adr/0028-mime-types.md. In each row the list allows the declared type.
func TestWhatASniffedTypeVetoes(t *testing.T) {
	office := zipped("[Content_Types].xml", "_rels/.rels", "word/document.xml")
	for _, c := range []struct {
		name, head, declared string
		lists                []string // with spaces between the patterns
		veto                 string   // the sniffed type that vetoes
	}{
		{"HTML as an image", html, "image/png", []string{"image/*"}, "text/html"},
		{"HTML as an image that sniffing does not know", html, "image/x-foo", []string{"image/*"}, "text/html"},
		{"HTML as an image, text is allowed", html, "image/png", []string{"image/* text/plain"}, "text/html"},
		{"HTML as an image, HTML is allowed", html, "image/png", []string{"image/png text/html"}, ""},
		{"HTML as text", html, "text/plain", []string{"text/plain"}, ""},
		{"HTML as text in another set", html, "text/plain; charset=latin1", []string{"text/plain"}, ""},
		{"HTML as Markdown", html, "text/markdown", []string{"text/markdown"}, ""},
		{"HTML as CSV", html, "text/csv", []string{"text/csv"}, "text/html"},
		{"HTML as XML", html, "application/xml", []string{"application/xml"}, "text/html"},
		{"HTML as a type of its own", html, "application/x-foo", []string{"application/x-foo"}, "text/html"},
		{"HTML as any bytes", html, "application/octet-stream", []string{"application/octet-stream"}, ""},
		{"unknown bytes", "\x00\x01\x02\x03\xfe", "image/png", []string{"image/png"}, ""},
		{"any text", "just some words", "image/png", []string{"image/png"}, ""},
		{"nothing", "", "image/png", []string{"image/png"}, ""},
		{"what it is", png, "image/png", []string{"image/png"}, ""},
		{"another type that is allowed", jpeg, "image/png", []string{"image/*"}, ""},
		{"another type that is not allowed", jpeg, "image/png", []string{"image/png"}, "image/jpeg"},
		{"a raw image", tiff, "image/x-raw", []string{"image/x-raw"}, ""},
		{"a raw image of another top level", tiff, "application/x-raw", []string{"application/x-raw"}, ""},
		{"a program as an image", exe, "image/png", []string{"image/*"}, "application/vnd.microsoft.portable-executable"},
		{
			"a program as an image that sniffing does not know", exe, "image/x-foo",
			[]string{"image/*"},
			"application/vnd.microsoft.portable-executable",
		},
		{"a program under another name", exe, "application/x-msdownload", []string{"application/x-msdownload"}, ""},
		{"a RAR under its registered name", rar, "application/vnd.rar", []string{"application/vnd.rar"}, ""},
		{"a zip as an image", zipped("a"), "image/png", []string{"image/*"}, "application/zip"},
		{"a zip under an alias", zipped("a"), "application/x-zip-compressed", []string{"application/x-zip-compressed"}, ""},
		{"a document that sniffs as a zip", zipped("a"), docx, []string{docx}, ""},
		{"a document that sniffs as itself", office, docx, []string{docx}, ""},
		{"a document as a zip", office, "application/zip", []string{"application/zip"}, ""},
		{"a document with macros", office, docm, []string{docm}, ""},
		{"a document as another", office, xlsx, []string{xlsx}, docx},
		{"a zip as an image on zips", zipped("a"), "image/openraster", []string{"image/openraster"}, ""},
		{"an old document", ole, "application/msword", []string{"application/msword"}, ""},
		{"music in MP4", m4a, "audio/mp4", []string{"audio/mp4"}, ""},
		{"a film in MP4 as QuickTime", mp4, "video/quicktime", []string{"video/quicktime"}, ""},
		{"HEIC as HEIF", heic, "image/heif", []string{"image/heif"}, ""},
		{"XML with a type of its own", xml, "application/vnd.foo+xml", []string{"application/vnd.foo+xml"}, ""},
		{"XML as SVG", xml, "image/svg+xml", []string{"image/svg+xml"}, ""},
		{"XML as an image", xml, "image/png", []string{"image/png"}, "text/xml"},
		{"JSON as an image", `{"a":[1,2,3]}`, "image/png", []string{"image/png"}, "application/json"},
		{"JSON with a type of its own", `{"a":[1,2,3]}`, "model/x-foo", []string{"model/x-foo"}, ""},
		{"compressed as a disk image", gzipped("a"), "application/x-foo", []string{"application/x-foo"}, ""},
		{"compressed as a film", gzipped("a"), "video/mp4", []string{"video/*"}, "application/gzip"},
		{"both lists", png, "image/png", []string{"image/*", "image/png"}, ""},
		{"the second list", jpeg, "image/png", []string{"image/*", "image/png"}, "image/jpeg"},
		{"lists that allow all", html, "image/png", []string{"", ""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lists [][]string
			for _, list := range c.lists {
				patterns, err := catalog.CleanMIMEPatterns("f", strings.Fields(list))
				if err != nil {
					t.Fatal(err)
				}
				lists = append(lists, patterns)
			}
			if err := catalog.CheckMIME(c.declared, lists...); err != nil {
				t.Fatal(err)
			}
			err := upload.Sniff([]byte(c.head)).Veto(c.declared, lists...)
			var veto *catalog.MIMEError
			switch {
			case c.veto == "" && err != nil:
				t.Error(err)
			case c.veto != "" && (!errors.As(err, &veto) || veto.Sniffed != c.veto):
				t.Errorf("%v, not of %s", err, c.veto)
			}
		})
	}
	if err := (upload.Sniffed{}).Veto("image/png", []string{"image/png"}); err != nil {
		t.Errorf("what was not sniffed: %v", err)
	}
}

// takes sets the types that capsule default takes.
func (w *world) takes(patterns ...string) {
	w.t.Helper()
	w.check(w.catalog.Update(w.t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(
			tx, "default", func(c *catalog.Capsule) error { c.MIMETypes = patterns; return nil }, catalog.Moment{},
		)
		return err
	}))
}

func (w *world) beginAs(mime, idem string, n int64) (upload.Upload, error) {
	return w.Begin(w.t.Context(), w.me, upload.BeginRequest{
		Meta: catalog.Meta{Name: "a", MIME: mime}, Bytes: n, Chunks: -1, Idem: idem,
	})
}

func (w *world) createAs(mime, content string, length int64) (catalog.Memory, error) {
	return w.Create(w.t.Context(), w.me, upload.CreateRequest{
		Meta: catalog.Meta{Name: "a", MIME: mime}, Put: upload.Put{Length: length},
	}, strings.NewReader(content))
}

// refusesType checks that an error is a refused type.
func (w *world) refusesType(what string, err error) {
	w.t.Helper()
	if !errors.Is(err, catalog.ErrMIME) || !strings.Contains(err.Error(), "image/*") {
		w.t.Errorf("%s: %v", what, err)
	}
}

// A type that the capsule does not take is refused before anything is sent. A begin that was
// answered once is answered again, whatever the list says by then.
func TestATypeThatIsNotTaken(t *testing.T) {
	w := newWorld(t)
	again, err := w.beginAs("text/plain", "i", chunk)
	w.check(err)
	w.takes("image/*")
	up, err := w.beginAs("text/plain", "i", chunk)
	if err != nil || up.ID != again.ID {
		t.Errorf("a repeat: session %s, %v", up.ID, err)
	}
	_, err = w.beginAs("text/html", "", chunk)
	w.refusesType("begin", err)
	_, err = w.beginAs("", "", chunk)
	w.refusesType("begin without a type", err)
	body := readerFunc(func([]byte) (int, error) { t.Error("the body is read"); return 0, errors.New("read") })
	for name, n := range map[string]int64{"create": chunk, "a large create": 3 * chunk, "a create of any length": -1} {
		_, err := w.Create(t.Context(), w.me, upload.CreateRequest{
			Meta: catalog.Meta{Name: "a", MIME: "text/html"}, Put: upload.Put{Length: n},
		}, body)
		w.refusesType(name, err)
	}
	w.nothingIsLeft(1)
}

// nothingIsLeft checks that there is no memory, so many open sessions, and no place that nobody
// knows of.
func (w *world) nothingIsLeft(open int64) {
	w.t.Helper()
	st, err := w.sessions.Stats(w.t.Context())
	w.check(err)
	if n := w.memories(); n != 0 || st.Open != open {
		w.t.Errorf("%d memories, %d open sessions", n, st.Open)
	}
	places, err := w.blobs.Places(w.t.Context(), "", 100)
	w.check(err)
	for _, p := range places {
		if st.BytesReceived > 0 {
			break // it is a session's
		}
		w.check(w.catalog.View(w.t.Context(), func(r catalog.Reader) error {
			if row, _, err := catalog.Places.Find(r, catalog.Name(p.Name)); err != nil || row.Name == "" {
				w.t.Errorf("place %s is left: %v", p.Name, err)
			}
			return nil
		}))
	}
}

// A content that contradicts its type is not published. Its session stays open and complete, and
// finishes once the capsule takes that.
func TestASniffedTypeVetoes(t *testing.T) {
	w := newWorld(t)
	w.takes("image/*")
	b := []byte(html + strings.Repeat(" ", 2*chunk))
	up, err := w.beginAs("image/png", "", int64(len(b)))
	w.check(err)
	w.putAll(up.ID, b)
	_, err = w.finish(up.ID, b)
	w.refusesType("finish", err)
	if !strings.Contains(err.Error(), "text/html") {
		t.Errorf("%v", err)
	}
	st, err := w.Status(t.Context(), w.me, up.ID)
	if err != nil || st.State != session.Open || st.Bytes() != int64(len(b)) {
		t.Errorf("%v with %d bytes, %v", st.State, st.Bytes(), err)
	}
	w.nothingIsLeft(1)
	w.takes("image/*", "text/html")
	m, err := w.finish(up.ID, b)
	w.check(err)
	if !bytes.Equal(w.content(m), b) {
		t.Error("other bytes")
	}
}

// A create that contradicts its type leaves nothing: inline, at a place, or through a session.
func TestACreateThatIsVetoedLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.takes("image/*")
	for name, n := range map[string]int{"inline": 0, "a place": chunk / 2, "a session": 3 * chunk} {
		b := html + strings.Repeat(" ", n)
		_, err := w.createAs("image/png", b, int64(len(b)))
		w.refusesType(name, err)
	}
	_, err := w.createAs("image/png", html, -1)
	w.refusesType("any length", err)
	w.nothingIsLeft(0)
	for _, n := range []int{0, chunk / 2, 3 * chunk} {
		b := png + string(make([]byte, n))
		_, err := w.createAs("image/png", b, int64(len(b)))
		w.check(err)
	}
}

// The list counts as it is at the commit: a declared type and a content that it does not take are
// refused there, also if there was no list when the upload was verified.
func TestTheTypesAreAskedForInTheCommit(t *testing.T) {
	for name, c := range map[string]struct {
		mime, content string
		refused       bool
	}{
		"the declared type":       {"text/plain", "words", true},
		"the sniffed type":        {"image/png", html, true},
		"a type that it may have": {"image/png", png, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			up, err := w.beginAs(c.mime, "", int64(len(c.content)))
			w.check(err)
			w.putAll(up.ID, []byte(c.content))
			w.blobs.FailPersist(func([]catalog.Extent) error { // between the verification and the commit
				w.takes("image/*")
				return nil
			})
			_, err = w.finish(up.ID, []byte(c.content))
			if c.refused {
				w.refusesType("finish", err)
			} else {
				w.check(err)
			}
			w.takes()
			w.blobs.FailPersist(nil)
			_, err = w.createAs(c.mime, c.content+strings.Repeat(" ", 100), int64(len(c.content))+100)
			w.check(err)
			w.blobs.FailPersist(func([]catalog.Extent) error { w.takes("image/*"); return nil })
			_, err = w.createAs(c.mime, c.content+strings.Repeat(" ", 101), int64(len(c.content))+101)
			if c.refused {
				w.refusesType("create", err)
			} else {
				w.check(err)
			}
		})
	}
}

// countedReads is a content store that counts the reads of a few bytes from the beginning.
type countedReads struct {
	blob.Store
	n atomic.Int64
}

func (r *countedReads) Read(ctx context.Context, extents []catalog.Extent, off, n int64) (io.ReadCloser, error) {
	r.n.Add(1)
	if off != 0 || n > 3072 {
		return nil, errors.New("more is read than needed")
	}
	return r.Store.Read(ctx, extents, off, n)
}

// A finish into a capsule that takes all types reads nothing back. With a list it reads once.
func TestSniffingReadsOnce(t *testing.T) {
	for _, c := range []struct {
		list []string
		want int64
	}{{nil, 0}, {[]string{"image/*"}, 1}} {
		w := newWorld(t)
		w.takes(c.list...)
		reads := &countedReads{Store: w.blobs}
		w.rewire(reads, limits())
		b := append([]byte(png), make([]byte, 3*chunk)...)
		up, err := w.beginAs("image/png", "", int64(len(b)))
		w.check(err)
		w.putAll(up.ID, b)
		_, err = w.finish(up.ID, b)
		w.check(err)
		if n := reads.n.Load(); n != c.want {
			t.Errorf("with %q: %d reads, want %d", c.list, n, c.want)
		}
	}
}
