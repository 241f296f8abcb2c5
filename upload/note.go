package upload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sluice/catalog"
	"sluice/session"
)

// A session's note and an entry's note are a version byte and CBOR:
//
//	session  01 [capsule, idem, fingerprint, name, path, mime, description, tags, width, height,
//	             taken_at ms]
//	entry    01 [place, offset in it, crc32c, gen, hashed, state]
//
// where state is the state of SHA-256 over the first `hashed` bytes of the session, computed while
// the session was at gen. hashed is 0 if there is no state.
const noteVersion = 1

var errNote = errors.New("damaged or unknown note")

// note is the decoded note of a session: what its upload is for.
type note struct {
	Capsule, Idem string
	Fingerprint   []byte
	Meta          catalog.Meta

	// damaged is the time since when the content that the key has finished is damaged. It is not
	// stored.
	damaged time.Time
	// most is how many bytes the upload may have by the ticket of its caller; 0: it has none. It is
	// not stored.
	most int64
}

// key is the idempotency key as the engine has it; empty if the client gave none. The finished
// session keeps its key, so the session that heals it gets another one.
func (n note) key() string {
	if n.Idem == "" {
		return ""
	}
	if !n.damaged.IsZero() {
		return fmt.Sprintf("%s\x00%s\x00%d", n.Capsule, n.Idem, n.damaged.UnixMilli())
	}
	return n.Capsule + "\x00" + n.Idem
}

type storedNote struct {
	_                       struct{} `cbor:",toarray"`
	Capsule, Idem           string
	Fingerprint             []byte
	Name, Path, MIME, Descr string
	Tags                    []string
	Width, Height, TakenAt  int64
}

func (n note) encode() ([]byte, error) {
	m := n.Meta
	st := storedNote{
		Capsule: n.Capsule, Idem: n.Idem, Fingerprint: n.Fingerprint,
		Name: m.Name, Path: m.Path, MIME: m.MIME, Descr: m.Description, Tags: m.Tags, Width: m.Width, Height: m.Height,
	}
	if !m.TakenAt.IsZero() {
		st.TakenAt = m.TakenAt.UnixMilli()
	}
	return encodeNoted(st)
}

func decodeNote(b []byte) (note, error) {
	var st storedNote
	if err := decodeNoted(b, &st); err != nil {
		return note{}, err
	}
	n := note{Capsule: st.Capsule, Idem: st.Idem, Fingerprint: st.Fingerprint, Meta: catalog.Meta{
		Name: st.Name, Path: st.Path, MIME: st.MIME, Description: st.Descr, Tags: st.Tags,
		Width: st.Width, Height: st.Height,
	}}
	if st.TakenAt != 0 {
		n.Meta.TakenAt = time.UnixMilli(st.TakenAt).UTC()
	}
	return n, nil
}

// entryNote is the decoded note of an entry: where its bytes are, and how far SHA-256 had got with
// it.
type entryNote struct {
	Place  string
	Off    int64
	CRC    uint32
	Gen    uint64
	Hashed int64
	State  []byte
}

type storedEntryNote struct {
	_      struct{} `cbor:",toarray"`
	Place  string
	Off    int64
	CRC    uint32
	Gen    uint64
	Hashed int64
	State  []byte
}

func (n entryNote) encode() ([]byte, error) {
	return encodeNoted(
		storedEntryNote{Place: n.Place, Off: n.Off, CRC: n.CRC, Gen: n.Gen, Hashed: n.Hashed, State: n.State},
	)
}

func decodeEntryNote(b []byte) (entryNote, error) {
	var st storedEntryNote
	err := decodeNoted(b, &st)
	return entryNote{st.Place, st.Off, st.CRC, st.Gen, st.Hashed, st.State}, err
}

// extent gives the extent of an entry.
func (n entryNote) extent(r session.Range) catalog.Extent {
	return catalog.Extent{Place: n.Place, Off: n.Off, Len: r.Len(), CRC32C: n.CRC}
}

func encodeNoted(v any) ([]byte, error) {
	b, err := cbor.Marshal(v)
	return append([]byte{noteVersion}, b...), err
}

func decodeNoted(b []byte, v any) error {
	if len(b) == 0 || b[0] != noteVersion {
		return errNote
	}
	if err := cbor.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("%w: %w", errNote, err)
	}
	return nil
}

// EngineConfig adds to cfg how the engine joins and compares the entries of a Service.
func EngineConfig(cfg session.Config) session.Config {
	cfg.Merge, cfg.Match = merge, match
	return cfg
}

// merge joins the notes of two adjacent entries of one chunk whose bytes lie side by side at one
// place. It combines their CRCs and keeps the later hash state.
func merge(a, b session.Entry) ([]byte, bool) {
	na, errA := decodeEntryNote(a.Note)
	nb, errB := decodeEntryNote(b.Note)
	if errA != nil || errB != nil || na.Place != nb.Place || na.Off+a.Len() != nb.Off {
		return nil, false
	}
	out := na
	out.CRC = combineCRC(na.CRC, nb.CRC, b.Len())
	if nb.Hashed > na.Hashed {
		out.Gen, out.Hashed, out.State = nb.Gen, nb.Hashed, nb.State
	}
	encoded, err := out.encode()
	return encoded, err == nil
}

// match compares an entry with the one that another Service has recorded for the same range. If
// their CRC-32C is equal the bytes are equal, and our own become garbage at their place.
func match(own, theirs session.Entry) error {
	a, err := decodeEntryNote(own.Note)
	if err != nil {
		return err
	}
	b, err := decodeEntryNote(theirs.Note)
	if err != nil {
		return err
	}
	if a.CRC != b.CRC {
		return session.ErrConflict
	}
	return nil
}

// fingerprint tells one request from another under the same idempotency key. It leaves out all that
// the server chose.
func fingerprint(m catalog.Meta, bytes, chunkSize int64) ([]byte, error) {
	b, err := note{Meta: m}.encode()
	if err != nil {
		return nil, err
	}
	b = fmt.Appendf(b, "|%d|%d", bytes, chunkSize)
	sum := sha256.Sum256(b)
	return sum[:16], nil
}
