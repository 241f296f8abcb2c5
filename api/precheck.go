package api

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// PrecheckRequest asks what uploads_begin would answer for each of at most 1,000 files.
type PrecheckRequest struct {
	CapsuleID string         `json:"capsule_id"`
	Files     []PrecheckFile `json:"files" max:"1000"`
	// EarlierFiles and EarlierBytes are what goes before these files, in a list that is asked about
	// in parts. They count in the capsule's quota.
	EarlierFiles int64 `json:"earlier_files,omitzero"`
	EarlierBytes int64 `json:"earlier_bytes,omitzero"`
}

// PrecheckFile is a file that is to be uploaded.
type PrecheckFile struct {
	Name     string `json:"name"`
	Path     string `json:"path,omitzero"`
	Bytes    int64  `json:"bytes"`
	MIMEType string `json:"mime_type,omitzero"`
	SHA256   string `json:"sha256,omitzero"` // 64 lower-case hex digits
}

// PrecheckResponse has a result for each file, in the order of the request.
type PrecheckResponse struct {
	Files []PrecheckResult `json:"files"`
}

// PrecheckResult says whether a begin would succeed. If not, it has members of the problem that a
// begin would answer.
type PrecheckResult struct {
	OK bool `json:"ok"`
	// MemoryID is a memory of the capsule that has this content already.
	MemoryID string `json:"memory_id,omitzero"`
	Status   int    `json:"status,omitzero"`
	Code     Code   `json:"code,omitzero"`
	Detail   string `json:"detail,omitzero"`
	Limit    *int64 `json:"limit,omitzero"`
	Left     *int64 `json:"left,omitzero"`
}

// precheckAnswer is about how many bytes a result may have in an answer.
const precheckAnswer = 1 << 10

func (s *Server) precheck(c *call, in PrecheckRequest) (PrecheckResponse, error) {
	if err := validCapsule(in.CapsuleID); err != nil {
		return PrecheckResponse{}, err
	}
	if err := s.reserveAnswer(c, int64(len(in.Files))*precheckAnswer); err != nil {
		return PrecheckResponse{}, err
	}
	if err := s.beginCompute(c); err != nil {
		return PrecheckResponse{}, err
	}
	req := upload.PrecheckRequest{
		Capsule: in.CapsuleID, Files: make([]upload.PrecheckFile, len(in.Files)),
		EarlierFiles: in.EarlierFiles, EarlierBytes: in.EarlierBytes,
	}
	for i, f := range in.Files {
		req.Files[i] = precheckFrom(f)
	}
	results, err := s.cfg.Uploads.Precheck(c.req.Context(), c.caller, req)
	if err != nil {
		return PrecheckResponse{}, err
	}
	out := PrecheckResponse{Files: make([]PrecheckResult, len(results))}
	for i, r := range results {
		out.Files[i] = precheckOf(r)
	}
	return out, nil
}

func precheckFrom(f PrecheckFile) upload.PrecheckFile {
	out := upload.PrecheckFile{
		Meta: catalog.Meta{Name: f.Name, Path: f.Path, MIME: f.MIMEType}, Bytes: f.Bytes,
	}
	if f.SHA256 != "" {
		out.SHA256, out.Refuse = digestFrom(f.SHA256, "sha256")
	}
	return out
}

func precheckOf(r upload.Prechecked) PrecheckResult {
	if r.Err == nil {
		out := PrecheckResult{OK: true}
		if r.Memory != uuid.Nil {
			out.MemoryID = r.Memory.String()
		}
		return out
	}
	f := faultOf(r.Err, func(session.SessionID) int64 { return 0 })
	return PrecheckResult{Status: f.Status, Code: f.Code, Detail: f.Detail, Limit: f.Limit, Left: f.Left}
}

// errPrechecked makes the error for an answer with another number of results than files.
func errPrechecked(results, files int) error {
	return fmt.Errorf("the answer has %d results for %d files", results, files)
}

// Precheck says what a Begin of each file would answer, in their order. Nothing is reserved.
func (c *Client) Precheck(ctx context.Context, req PrecheckRequest) ([]PrecheckResult, error) {
	var out PrecheckResponse
	err := c.post(ctx, "/v1/uploads_precheck", req, &out)
	if err == nil && len(out.Files) != len(req.Files) {
		err = errPrechecked(len(out.Files), len(req.Files))
	}
	return out.Files, err
}
