package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sluice/access"
	"sluice/access/oidc"
	"sluice/api"
	"sluice/audit"
	"sluice/catalog"
	"sluice/internal/budget"
	"sluice/internal/direct"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/keeper"
	"sluice/memories"
	"sluice/session"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// server is everything that runs on one data folder.
type server struct {
	*data
	access  *access.Service
	uploads *upload.Service
	keeper  *keeper.Keeper
	api     *api.Server
	issuer  *oidc.Verifier // nil if the server takes only tokens of its own
	control *controlSocket // nil if the folder can't have one
}

// wire opens the data folder and makes the services. This is the whole graph of a server:
//
//	folder ─▶ metadata, content ─▶ engine ─▶ uploads, memories, access, keeper ─▶ api
//
// After an error nothing is open.
func (c *serveCmd) wire(
	ctx context.Context, b budget.Budget, log *slog.Logger, records *audit.Log, die func(error), made func(),
) (s *server, err error) {
	s = &server{data: &data{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	bounds := catalog.Bounds{MaxSessions: c.MaxOpenSessions}
	s.data, err = openData(c.Data, c.durability(), folder.Options{Made: made, Log: log}, pebblemeta.Options{
		Hook: upload.Hook(bounds, nil), Die: die,
		Reserve: metaReserve, Tables: b.Tables, Log: log,
	}, localblob.Options{
		Direct:  direct.Config{Off: c.DirectIO == "off", Buffers: b.DirectBuffers},
		Reserve: contentReserve, Files: b.Files, Log: log,
	})
	if err != nil {
		return s, err
	}
	clock, sessions, rows, content := system.Clock{}, s.meta.Sessions(), s.meta.Catalog(), s.blobs
	engine, err := session.New(ctx, sessions, upload.EngineConfig(session.Config{
		TTL: c.SessionTTL, MaxAge: c.SessionMaxAge, MinEntry: 4 << 10, States: b.States,
		MaxLarge: b.LargeBuffers, Buffers: content.Buffers(), Clock: clock,
	}))
	if err != nil {
		return s, err
	}
	s.uploads = upload.New(upload.Config{
		Sessions: engine, Catalog: rows, Blobs: content, Clock: clock,
		Limits: c.limits(b), Bounds: bounds, CheckSpace: s.checkSpace, Log: log,
	})
	stored := memories.New(memories.Config{
		Catalog: rows, Content: content, Clock: clock, Running: engine.Running,
		TrashFor: time.Duration(c.TrashDays) * 24 * time.Hour,
	})
	s.access = access.New(rows, clock, engine.Running, nil)
	if s.issuer, err = c.OIDC.verifier(log); err != nil {
		return s, err
	}
	if s.issuer != nil {
		s.access.SetIssuer(s.issuer)
	}
	s.keeper = keeper.New(keeper.Config{
		Sessions: engine, Uploads: s.uploads, Catalog: rows, Blobs: content, Clock: clock,
		InPlace: s.look, KnownIncarnation: s.folder.KnownIncarnation, WriteLastUses: s.access.WriteLastUses,
		Audit: records, Log: log,
	})
	s.api, err = api.New(api.Config{
		Uploads: s.uploads, Memories: stored, Sessions: engine, Access: s.access,
		Expire: s.keeper.Tick, EndOwner: s.keeper.EndOwner, Bounds: bounds, SignIn: c.OIDC.signIn(),
		Ready: s.ready, Damaged: s.meta.Damaged,
		MaxConns: b.Connections, MaxRequests: b.Requests, Refused: b.Refused,
		MaxHead: b.Head, Unread: b.Unread, JSON: b.JSON, AnswerBytes: b.AnswerBytes, Audit: records, Log: log,
		RequestRate: c.RequestRate, FailedAuthRate: c.FailedAuthRate,
		TrustedProxies: c.proxies(), Origins: c.origins(),
	})
	return s, err
}

// durability is the one setting of both stores.
func (c *serveCmd) durability() durable.Durability {
	if c.Durability == "process" {
		return durable.Process
	}
	return durable.Power
}

// limits are those of uploads.
func (c *serveCmd) limits(b budget.Budget) upload.Limits {
	l := upload.DefaultLimits()
	l.MaxBytes, l.TTL, l.MaxAge = c.MaxBytes, c.SessionTTL, c.SessionMaxAge
	l.FinishEntries, l.BatchEntries = b.FinishEntries, b.BatchEntries
	return l
}

// close closes what is open, the data folder last.
func (s *server) close() error {
	if s.uploads != nil {
		s.uploads.Close()
	}
	return s.data.close()
}
