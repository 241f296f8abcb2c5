package memories

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"sluice/access"
	"sluice/catalog"
)

// CapsuleRequest describes a new capsule.
type CapsuleRequest struct {
	ID, Name, Subject   string // an empty ID becomes a UUIDv7
	Owners, Controllers []string
	MIMETypes           []string // see catalog.MIMEAllowed
}

// CapsuleChange is a change of a capsule: a nil field stays. Only an admin may change quotas.
type CapsuleChange struct {
	Name, Subject             *string
	Owners, Controllers       *[]string
	QuotaBytes, QuotaMemories *int64
	MIMETypes                 *[]string
}

// CreateCapsule makes a capsule. If no owner is named, the caller is its owner. Only an admin may
// make a capsule in which it has no role. catalog.ErrExists if the id is taken.
func (s *Service) CreateCapsule(
	ctx context.Context, c access.Caller, req CapsuleRequest,
) (row catalog.Capsule, err error) {
	if req.ID == "" {
		id, err := uuid.NewV7FromReader(s.cfg.Rand)
		if err != nil {
			return row, err
		}
		req.ID = id.String()
	}
	if len(req.Owners) == 0 {
		req.Owners = []string{c.Principal}
	}
	fresh := catalog.Capsule{
		ID:          req.ID,
		Name:        req.Name,
		Subject:     req.Subject,
		Owners:      req.Owners,
		Controllers: req.Controllers,
		MIMETypes:   req.MIMETypes,
	}
	at := s.moment()
	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if err := access.AllowAny(tx, c, true, at.Now); err != nil {
			return err
		}
		if row, err = catalog.NewCapsule(tx, fresh, at); err != nil {
			return err
		}
		if _, err := access.Allow(tx, c, access.Read, row.ID, at.Now); err != nil &&
			access.AllowAdmin(tx, c, true, at.Now) != nil {
			return fmt.Errorf("%w: only an admin may make a capsule for others", access.ErrForbidden)
		}
		return checkMembers(tx, row)
	})
	return row, err
}

// checkMembers checks that the principals in the roles of c exist.
func checkMembers(r catalog.Reader, c catalog.Capsule) error {
	for _, id := range c.Members() {
		if _, ok, err := catalog.Principals.Find(r, catalog.Name(id)); err != nil {
			return err
		} else if !ok {
			return &catalog.FieldError{
				Field:   "owners, controllers or subject",
				Problem: fmt.Sprintf("names a principal that does not exist: %.60q", id),
			}
		}
	}
	return nil
}

// ReadCapsule gives a capsule with its counters, to admins and to every principal with a role in
// it.
func (s *Service) ReadCapsule(ctx context.Context, c access.Caller, id string) (row catalog.Capsule, err error) {
	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		row, err = access.Allow(r, c, access.Inspect, id, s.cfg.Clock.Now())
		return err
	})
	return row, err
}

// ListCapsules gives a page of the capsules that the caller may inspect, sorted by id.
func (s *Service) ListCapsules(
	ctx context.Context, c access.Caller, cursor string, limit int,
) (page []catalog.Capsule, next string, err error) {
	if limit < 1 || limit > 1000 {
		return nil, "", &catalog.FieldError{Field: "limit", Problem: "must be 1 to 1000"}
	}
	after, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(after) > 0 && !catalog.ValidCapsuleID(string(after)) {
		return nil, "", ErrCursor
	}
	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		page, next = nil, ""
		size, now := 0, s.cfg.Clock.Now()
		if err := access.AllowAny(r, c, false, now); err != nil {
			return err
		}
		for row, err := range s.inspectable(r, c, string(after)) {
			if errors.Is(err, catalog.ErrDamaged) {
				continue
			}
			if err != nil {
				return err
			}
			if len(page) == limit || size >= pageBytes {
				next = base64.RawURLEncoding.EncodeToString([]byte(page[len(page)-1].ID))
				return nil
			}
			page, size = append(page, row), size+512+len(row.Name)+
				40*(len(row.Owners)+len(row.Controllers)+len(row.MIMETypes))
		}
		return nil
	})
	return page, next, err
}

// inspectable gives the capsules after an id that the caller may inspect: all of them if it is an
// admin, else those in which it has a role.
func (s *Service) inspectable(r catalog.Reader, c access.Caller, after string) func(func(catalog.Capsule, error) bool) {
	if access.AllowAdmin(r, c, false, s.cfg.Clock.Now()) == nil {
		return catalog.Capsules.After(r, catalog.Name(after))
	}
	return func(yield func(catalog.Capsule, error) bool) {
		// 0x7f sorts after every character of an id.
		from := catalog.RoleKey{Principal: c.Principal, Capsule: after}
		to := catalog.RoleKey{Principal: c.Principal, Capsule: "\x7f"}
		for role, err := range catalog.Roles.Scan(r, from, to) {
			var row catalog.Capsule
			if err == nil {
				if role.Capsule == after {
					continue
				}
				row, err = catalog.Capsules.Get(r, catalog.Name(role.Capsule))
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// UpdateCapsule changes the name or the MIME types (owners and controllers may), the roles
// (owners), or the quotas (admins). The MIME types say what the capsule is for, as its name does.
// They give nobody a right and no room, and a controller may delete what it does not want there
// anyway.
func (s *Service) UpdateCapsule(
	ctx context.Context, c access.Caller, id string, change CapsuleChange,
) (row catalog.Capsule, err error) {
	var wants []access.Action
	if change.Name != nil || change.MIMETypes != nil {
		wants = append(wants, access.Manage)
	}
	if change.Subject != nil || change.Owners != nil || change.Controllers != nil {
		wants = append(wants, access.Own)
	}
	if change.QuotaBytes != nil || change.QuotaMemories != nil {
		wants = append(wants, access.Quota)
	}
	if len(wants) == 0 {
		return row, &catalog.FieldError{Field: "request", Problem: "names nothing to change"}
	}
	at := s.moment()
	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		for _, a := range wants {
			if _, err := access.Allow(tx, c, a, id, at.Now); err != nil {
				return err
			}
		}
		row, err = catalog.ChangeCapsule(tx, id, func(to *catalog.Capsule) error {
			change.apply(to)
			// What a deleted principal has left goes step by step. Until then its roles are no
			// reason to refuse a change that does not name it.
			var named catalog.Capsule
			change.apply(&named)
			return checkMembers(tx, named)
		}, at)
		return err
	})
	return row, err
}

func (change CapsuleChange) apply(to *catalog.Capsule) {
	set(&to.Name, change.Name)
	set(&to.Subject, change.Subject)
	set(&to.Owners, change.Owners)
	set(&to.Controllers, change.Controllers)
	set(&to.QuotaBytes, change.QuotaBytes)
	set(&to.QuotaMemories, change.QuotaMemories)
	set(&to.MIMETypes, change.MIMETypes)
}

// DeleteCapsule deletes an empty capsule. It gives catalog.ErrNotEmpty if the capsule is not empty.
// Only owners may.
func (s *Service) DeleteCapsule(ctx context.Context, c access.Caller, id string) error {
	at := s.moment()
	return s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, err := access.Allow(tx, c, access.Own, id, at.Now); err != nil {
			return err
		}
		return catalog.DeleteCapsule(tx, id, at)
	})
}
