package api

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"sluice/catalog"
	"sluice/memories"
	"sluice/session"
	"sluice/upload"
)

// maxRanges bounds every list of ranges in an answer.
const maxRanges = 1000

func sessionOf(u upload.Upload) Session {
	gaps := u.Session.Missing(maxRanges + 1)
	s := Session{
		SessionID: u.ID.String(), State: u.State.String(), ChunkSize: u.ChunkSize,
		BytesReceived: u.Bytes(), CapsuleID: u.Capsule, Meta: metaOf(u.Meta, u.BytesExpected), Idem: u.IdemKey,
		CreatedAt: Time{u.Began}, LastSeen: Time{u.LastSeen}, ExpiresAt: Time{u.Ends}, Deleted: u.Deleted,
	}
	s.ExpectedChunks, s.BytesExpected = known(u.Chunks()), known(u.BytesExpected)
	s.MissingBytes, s.More = byteRanges(gaps)
	s.Missing = chunkRanges(gaps[:len(s.MissingBytes)], u.ChunkSize)
	if u.Memory != uuid.Nil {
		s.MemoryID = u.Memory.String()
	}
	return s
}

// known returns nil for session.Unknown.
func known(n int64) *int64 {
	if n == session.Unknown {
		return nil
	}
	return &n
}

// byteRanges returns the inclusive form of the first 1,000 ranges. more reports whether there are
// others.
func byteRanges(rs []session.Range) (out []Range, more bool) {
	n := min(len(rs), maxRanges)
	out = make([]Range, n)
	for i, r := range rs[:n] {
		out[i] = Range{r.Off, r.End - 1}
	}
	return out, len(rs) > n
}

// chunkRanges returns the chunks that the bytes touch, inclusive, with neighbours joined.
func chunkRanges(rs []session.Range, size int64) []Range {
	out := make([]Range, 0, len(rs))
	for _, r := range rs {
		if r.Empty() || size <= 0 {
			continue
		}
		first, last := r.Off/size, (r.End-1)/size
		if n := len(out) - 1; n >= 0 && first <= out[n][1]+1 {
			out[n][1] = max(out[n][1], last)
		} else {
			out = append(out, Range{first, last})
		}
	}
	return out
}

func metaOf(m catalog.Meta, n int64) Meta {
	return Meta{
		Name: m.Name, MIMEType: m.MIME, Bytes: known(n), Path: m.Path, Description: m.Description, Tags: m.Tags,
		Width: m.Width, Height: m.Height, TakenAt: Time{m.TakenAt},
	}
}

func metaFrom(m Meta) catalog.Meta {
	return catalog.Meta{
		Name: m.Name, Path: m.Path, MIME: m.MIMEType, Description: m.Description, Tags: m.Tags,
		Width: m.Width, Height: m.Height, TakenAt: m.TakenAt.Time,
	}
}

func beginFrom(r BeginRequest) (upload.BeginRequest, error) {
	out := upload.BeginRequest{
		Capsule: r.CapsuleID, Meta: metaFrom(r.Meta), Bytes: session.Unknown, Chunks: -1, ChunkSize: r.ChunkSize,
		Idem: r.Idem,
	}
	if err := validCapsule(r.CapsuleID); err != nil {
		return out, err
	}
	if r.Meta.Bytes != nil {
		if out.Bytes = *r.Meta.Bytes; out.Bytes < 0 {
			return out, invalid("meta.bytes", "must not be negative")
		}
	}
	if r.ExpectedChunks != nil {
		if out.Chunks = *r.ExpectedChunks; out.Chunks < 0 {
			return out, invalid("expected_chunks", "must not be negative")
		}
	}
	return out, nil
}

func finishFrom(r FinishRequest, field string) (out upload.FinishRequest, err error) {
	if out.ID, err = session.ParseID(r.SessionID); err != nil {
		return out, invalid(field+"session_id", "must be a session id: a positive decimal number in a string")
	}
	sum, err := digestFrom(r.SHA256, field+"sha256")
	if err != nil {
		return out, err
	}
	out.SHA256 = *sum
	if out.Length = r.TotalLen; out.Length < 0 {
		return out, invalid(field+"total_len", "must not be negative")
	}
	for i, c := range r.ChunkCRC32C {
		n, err := strconv.ParseUint(c, 16, 32)
		if err != nil || len(c) != 8 {
			return out, invalid(fmt.Sprintf("%schunk_crc32c[%d]", field, i), "must be 8 hex digits")
		}
		out.CRC32C = append(out.CRC32C, uint32(n))
	}
	return out, nil
}

// digestFrom reads 64 lower-case hex digits.
func digestFrom(s, field string) (*catalog.SHA256, error) {
	var out catalog.SHA256
	if n, err := hex.Decode(out[:], []byte(s[:min(len(s), 64)])); err != nil || n != len(out) ||
		hex.EncodeToString(out[:]) != s {
		return nil, invalid(field, "must be 64 lower-case hex digits")
	}
	return &out, nil
}

// memoryID reads the canonical form of a UUID alone. Other spellings are other ids.
func memoryID(s string) (catalog.MemoryID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && id != uuid.Nil && id.String() == s
}

// isID reports whether s is an id that the server may have made up.
func isID(s string) bool {
	_, ok := memoryID(s)
	return ok
}

func memoryIDFrom(s, field string) (catalog.MemoryID, error) {
	id, ok := memoryID(s)
	if !ok {
		return id, invalid(field, "must be a memory's id: a UUID in its lower-case form")
	}
	return id, nil
}

func memoryOf(m catalog.Memory) Memory {
	return Memory{
		MemoryID: m.ID.String(), CapsuleID: m.Capsule, Name: m.Name, Path: m.Path, MIMEType: m.MIME,
		Description: m.Description, Tags: m.Tags,
		Width: m.Width, Height: m.Height, TakenAt: Time{m.TakenAt}, Bytes: m.Bytes,
		SHA256:    hex.EncodeToString(m.SHA256[:]),
		CreatedAt: Time{m.Created}, ContentURL: contentPath + m.ID.String(), DeletedAt: Time{m.Trashed},
	}
}

func memoriesOf(ms []catalog.Memory) []Memory {
	out := make([]Memory, len(ms))
	for i, m := range ms {
		out[i] = memoryOf(m)
	}
	return out
}

func capsuleOf(c catalog.Capsule) Capsule {
	return Capsule{
		CapsuleID: c.ID, Name: c.Name, Subject: c.Subject, Owners: slices.Clone(c.Owners),
		Controllers: slices.Clone(c.Controllers),
		CreatedAt:   Time{c.Created}, Memories: c.Memories, Bytes: c.Bytes, Trashed: c.Trashed,
		OpenSessions: c.Sessions, ReservedBytes: c.Reserved, QuotaBytes: c.QuotaBytes, QuotaMemories: c.QuotaMemories,
		MIMETypes: slices.Clone(c.MIMETypes),
	}
}

func capsuleChangeFrom(r UpdateCapsuleRequest) memories.CapsuleChange {
	return memories.CapsuleChange{
		Name: r.Name, Subject: r.Subject, Owners: r.Owners, Controllers: r.Controllers,
		QuotaBytes: r.QuotaBytes, QuotaMemories: r.QuotaMemories, MIMETypes: r.MIMETypes,
	}
}

func adminSessionOf(s session.Session) AdminSession {
	return AdminSession{
		SessionID: s.ID.String(), State: s.State.String(), Owner: s.Owner, ChunkSize: s.ChunkSize,
		ExpectedChunks: known(s.Chunks()), BytesExpected: known(s.BytesExpected), BytesReceived: s.Bytes(),
		CreatedAt: Time{s.Began}, LastSeen: Time{s.LastSeen}, ExpiresAt: Time{s.Ends},
	}
}

func statsOf(s session.Stats) SessionStats {
	out := SessionStats{
		Open: s.Open, Sealed: s.Sealed, BytesExpected: s.BytesExpected, BytesReceived: s.BytesReceived,
		Begun: s.Begun, Finished: s.Finished, Aborted: s.Aborted, Expired: s.Expired,
	}
	if s.OldestSeen != 0 {
		out.OldestLastSeen = Time{time.UnixMilli(s.OldestSeen)}
	}
	return out
}
