package main

// ofMeetings are bugs that need two calls to meet.
func ofMeetings() []mutant {
	return []mutant{
		{
			name: "a-delete-answers-before-its-commit", promise: 3, file: "memories/memories.go",
			old:   "	at := s.moment()\n	return s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {\n		if _, err := s.find(tx, c, id, access.Delete); err != nil {\n			return err\n		}\n		if purge || s.cfg.TrashFor <= 0 {\n			return catalog.Purge(tx, id, at)\n		}\n		return catalog.Trash(tx, id, s.cfg.TrashFor, at)\n	})",
			new:   "	at := s.moment()\n	if err := s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {\n		m, err := s.find(r, c, id, access.Delete)\n		if err == nil && !purge && !m.Trashed.IsZero() {\n			err = catalog.ErrNotFound\n		}\n		return err\n	}); err != nil {\n		return err\n	}\n	go func() {\n		_ = s.cfg.Catalog.Update(context.WithoutCancel(ctx), func(tx catalog.Tx) error {\n			if purge || s.cfg.TrashFor <= 0 {\n				return catalog.Purge(tx, id, at)\n			}\n			return catalog.Trash(tx, id, s.cfg.TrashFor, at)\n		})\n	}()\n	return nil",
			tests: []string{"internal/test/linear.TestConcurrentHistoriesAreLinearizable"},
		},
		{
			name: "a-restore-brings-a-purged-memory-back", promise: 3, file: "memories/memories.go",
			old:   "	at := s.moment()\n	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {\n		if m, err = s.find(tx, c, id, access.Delete); err != nil || m.Trashed.IsZero() {\n			return err\n		}\n",
			new:   "	at := s.moment()\n	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {\n		m, err = s.find(r, c, id, access.Delete)\n		return err\n	})\n	if err != nil || m.Trashed.IsZero() {\n		return m, err\n	}\n	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {\n		if err := catalog.Memories.Put(tx, catalog.MemoryKey(id), m); err != nil {\n			return err\n		}\n",
			tests: []string{"internal/test/linear.TestConcurrentHistoriesAreLinearizable"},
		},
		{
			name: "an-abort-after-the-finish-is-answered-as-done", promise: 5, file: "session/end.go",
			old:   "	if errors.Is(err, ErrAborted) {\n		return nil",
			new:   "	if errors.Is(err, ErrAborted) || errors.Is(err, ErrFinished) {\n		return nil",
			tests: []string{"internal/test/linear.TestConcurrentHistoriesAreLinearizable"},
		},
		{
			name: "readers-see-what-is-not-synced", promise: 9, file: "store/pebblemeta/catalog.go",
			old:   "	return f(reader{v, c.db, c.db.cache, v.seq})",
			new:   "	return f(reader{Reader: c.db.peb, db: c.db})",
			tests: []string{"internal/test/linear.TestConcurrentHistoriesAreLinearizable"},
		},
		{
			name: "a-create-asks-for-its-key-before-its-commit", promise: 5, file: "catalog/publish.go",
			old:   "	if p.IdemKey != \"\" {\n		row, old, deleted, found, err := FinishedIdem(tx",
			new:   "	if false {\n		row, old, deleted, found, err := FinishedIdem(tx",
			tests: []string{"internal/test/linear.TestConcurrentHistoriesAreLinearizable"},
		},
		{
			name: "a-begin-asks-for-its-key-before-its-commit", promise: 5, file: "upload/hook.go",
			old:   "	if s.Idem != \"\" {\n		_, m,",
			new:   "	if false {\n		_, m,",
			tests: []string{"upload.TestABeginThatMeetsACreateOfItsKey"},
		},
		{
			name: "a-begin-answers-with-an-aborted-session", promise: 5, file: "upload/begin.go",
			old:   "if s.State == session.Aborted || s.State == session.Expired {",
			new:   "if false {",
			tests: []string{"upload.TestABeginThatMeetsAnAbort"},
		},
		{
			name: "a-repeated-create-answers-with-a-deleted-memory", promise: 5, file: "upload/create.go",
			old:   "err == nil && !m.Trashed.IsZero() {",
			new:   "err == nil && false {",
			tests: []string{"upload.TestARepeatedCreateThatMeetsADelete"},
		},
	}
}
