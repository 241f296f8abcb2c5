package main

// ofStores breaks the embedded stores and the file steps below them.
func ofStores() []mutant {
	return []mutant{
		{
			name: "a-snapshot-is-taken-after-the-sync", promise: 9, file: "store/pebblemeta/txn.go",
			old:   "	t.db.views.publish(snap, seq)",
			new:   "	_ = snap.Close()\n	t.db.views.publish(t.db.peb.NewSnapshot(), seq)",
			tests: []string{"store/pebblemeta.TestASyncShowsItsOwnCommitAlone"},
		},
		{
			name: "a-commit-is-shown-before-its-sync", promise: 9, file: "store/pebblemeta/txn.go",
			old:   "	if err := t.batch.SyncWait(); err != nil {\n		t.db.fatal(fmt.Errorf(\"writing the metadata's log: %w\", err))\n	}\n	t.db.views.publish(snap, seq)",
			new:   "	t.db.views.publish(snap, seq)\n	if err := t.batch.SyncWait(); err != nil {\n		t.db.fatal(fmt.Errorf(\"writing the metadata's log: %w\", err))\n	}",
			tests: []string{"store/pebblemeta.TestNobodySeesWhatACrashCouldTakeBack"},
		},
		{
			name: "the-metadata-is-not-synced", promise: 1, file: "store/pebblemeta/txn.go",
			old:   "	if err := db.peb.ApplyNoSyncWait(t.batch, pebble.Sync); err != nil {",
			new:   "	if err := db.peb.Apply(t.batch, pebble.NoSync); err != nil {",
			tests: []string{"store/pebblemeta.TestAnAcknowledgedCommitSurvivesAnyCrash", "internal/crashtest.TestAnyHistory", "internal/realdisk.TestNoPowerLossTakesWhatWasAcknowledged"},
		},
		{
			name: "the-running-time-is-in-memory-alone", promise: 9, file: "store/pebblemeta/list.go",
			old:   "	t := st.db.begin()\n	defer t.close()\n	t.delta.Newest = running\n",
			new:   "	if running > 0 {\n		return running, nil\n	}\n	t := st.db.begin()\n	defer t.close()\n",
			tests: []string{"store/pebblemeta.TestSessionsAreAStore", "store/pebblemeta.TestAnyHistoryOfTwoServices", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-commit-for-good-is-as-light-as-a-record", promise: 2, file: "store/pebblemeta/light.go",
			old:   "	if f.of.light.Load() > 0 && f.of.heavy.Load() == 0 {",
			new:   "	if f.of.light.Load()+f.of.heavy.Load() > 0 {",
			tests: []string{"store/pebblemeta.TestALightCommitWaitsForNoSync", "store/pebblemeta.TestAPowerLossTakesTheNewestLightCommitsAlone", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-log-is-closed-before-it-is-synced", promise: 2, file: "store/pebblemeta/light.go",
			old:   "	if f.synced < f.written {\n		err = f.File.SyncData()\n	}",
			new:   "",
			tests: []string{"store/pebblemeta.TestALogIsSyncedBeforeTheNext"},
		},
		{
			name: "a-log-says-that-it-was-synced", promise: 1, file: "store/pebblemeta/light.go",
			old:   "		noteSynced(f.buf, f.written, uint64(f.synced))\n",
			new:   "",
			tests: []string{"store/pebblemeta.TestALogSaysWhatWasSynced", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-commit-does-not-wait-for-the-direct-write", promise: 1, file: "store/localblob/write.go",
			old:   "	if err := w.past.Wait(); err != nil {\n		return catalog.Extent{}, full(err)\n	}\n",
			new:   "",
			tests: []string{"internal/crashtest.TestAFailureOfEveryStep"},
		},
		{
			name: "a-failed-direct-write-is-not-told", promise: 6, file: "internal/direct/direct.go",
			old:   "		w.err = err // read when busy is closed",
			new:   "		_ = err",
			tests: []string{"internal/direct.TestALateErrorIsTold", "internal/crashtest.TestAFailureOfEveryStep"},
		},
		{
			name: "the-rest-of-a-block-is-not-written", promise: 4, file: "internal/direct/direct.go",
			old:   "	if to < end {",
			new:   "	if to < end && to == 0 {",
			tests: []string{"internal/direct.TestTheBytesArriveWhole", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-whole-block-is-taken-where-a-part-is-there", promise: 4, file: "internal/direct/direct.go",
			old:   "		from, to = (off+block-1)/block*block, end/block*block",
			new:   "		from, to = (off+block-1)/block*block, min((end+block-1)/block*block, off+int64(cap(q)))",
			tests: []string{"internal/direct.TestTheBytesArriveWhole"},
		},
		{
			name: "a-buffer-is-lent-while-it-is-written", promise: 4, file: "internal/direct/direct.go",
			old:   "	b.users.Add(1)\n	w.busy = busy",
			new:   "	w.busy = busy",
			tests: []string{"internal/direct.TestABufferIsNotLentWhileItIsWritten"},
		},
		{
			name: "nobody-waits-for-the-sync-of-the-metadata", promise: 1, file: "store/pebblemeta/txn.go",
			old:   "	if err := t.batch.SyncWait(); err != nil {",
			new:   "	late := t.batch\n	t.batch = t.db.peb.NewBatch()\n	go func() { _, _ = late.SyncWait(), late.Close() }()\n	if err := error(nil); err != nil {",
			tests: []string{"store/pebblemeta.TestNobodySeesWhatACrashCouldTakeBack"},
		},
		{
			name: "a-refusal-answers-before-what-it-read-is-durable", promise: 9, file: "store/pebblemeta/txn.go",
			old:   "	if lost := t.db.views.wait(ctx, seq); lost != nil {\n		return lost\n	}\n",
			new:   "	_ = seq\n",
			tests: []string{"store/pebblemeta.TestNobodySeesWhatACrashCouldTakeBack"},
		},
		{
			name: "pieces-get-another-key", promise: 10, file: "store/pebblemeta/keys.go",
			old:   "	keyEntry    = 'E'",
			new:   "	keyEntry    = 'e'",
			tests: []string{"cmd/sluice.TestFoldersOfEarlierVersions"},
		},
		{
			name: "a-damaged-row-is-guessed-at", promise: 4, file: "store/pebblemeta/codec.go",
			old:   "		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,\n",
			new:   "",
			tests: []string{"store/pebblemeta.TestARowThatCannotBeReadIsNamed"},
		},
		{
			name: "newer-metadata-is-opened", promise: 10, file: "store/pebblemeta/open.go",
			old:   "	if have > format {",
			new:   "	if false {",
			tests: []string{"store/pebblemeta.TestAFolderThatIsNotOursIsLeftAlone"},
		},
		{
			name: "newer-content-is-opened", promise: 10, file: "store/localblob/localblob.go",
			old:   "		if have > format {",
			new:   "		if false {",
			tests: []string{"store/localblob.TestAFolderHasOneOwnerAndOneFormat"},
		},
		{
			name: "an-unclean-stop-is-not-remembered", promise: 1, file: "store/localblob/localblob.go",
			old:   "	if !old.Clean || moved {",
			new:   "	if moved {",
			tests: []string{"store/localblob.TestAStopThatWasNotCleanIsRemembered", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-copied-folder-is-trusted", promise: 1, file: "store/localblob/localblob.go",
			old:   "	moved := old.Folder != \"\" && old.Folder != now.Folder",
			new:   "	moved := false",
			tests: []string{"store/localblob.TestAStopThatWasNotCleanIsRemembered"},
		},
		{
			name: "the-crc-is-not-compared-on-reading", promise: 4, file: "store/localblob/read.go",
			old:   "	if part.whole && r.crc != part.e.CRC32C {",
			new:   "	if false {",
			tests: []string{"store/localblob.TestConformance"},
		},
		{
			name: "settle-syncs-nothing", promise: 2, file: "store/localblob/settle.go",
			old:   "	err := f.f.Sync()\n",
			new:   "	err := error(nil)\n",
			tests: []string{"store/localblob.TestAFailedSyncIsNeverTriedAgain", "internal/crashtest.TestAnyHistory", "internal/realdisk.TestNoPowerLossTakesWhatWasAcknowledged"},
		},
		{
			name: "the-folder-is-not-synced", promise: 2, file: "store/localblob/settle.go",
			old:   "	if err == nil && unlisted {",
			new:   "	if err == nil && unlisted && false {",
			tests: []string{"store/localblob.TestAFailedFolderSync", "internal/crashtest.TestAnyHistory"},
		},
		{
			name: "a-failed-sync-is-tried-again", promise: 7, file: "store/localblob/settle.go",
			old:   "	if f.failed != nil {\n		defer f.mu.Unlock()\n		return f.failed\n	}\n	f.syncing",
			new:   "	f.failed = nil\n	f.syncing",
			tests: []string{"store/localblob.TestAFailedSyncIsNeverTriedAgain"},
		},
		{
			name: "what-a-poisoned-place-takes-is-acknowledged", promise: 7, file: "store/localblob/settle.go",
			old:   "		f.dirty = session.Add(f.dirty, r)\n	}\n	return f.failed",
			new:   "		f.dirty = session.Add(f.dirty, r)\n	}\n	return nil",
			tests: []string{"store/localblob.TestAWriterDoesNotOutliveAFailedSync"},
		},
		{
			name: "the-reserve-is-written-to", promise: 6, file: "store/localblob/place.go",
			old:   "	return max(free-s.opts.Reserve, 0), err",
			new:   "	return free, err",
			tests: []string{"store/localblob.TestTheReserveStaysFree"},
		},
		{
			name: "a-name-of-a-place-may-be-a-path", promise: 16, file: "store/localblob/place.go",
			old:   "	return p, p.String() == name",
			new:   "	return p, true",
			tests: []string{"store/localblob.TestNamesNeverBecomePaths"},
		},
		{
			name: "a-second-server-opens-the-folder", promise: 12, file: "internal/durable/lock_unix.go",
			old:   "			return ErrLocked",
			new:   "			return nil",
			tests: []string{"internal/durable.TestALockHasOneHolder", "store/localblob.TestAFolderHasOneOwnerAndOneFormat"},
		},
		{
			name: "a-failing-disk-of-the-metadata-is-put-up-with", promise: 6, file: "store/pebblemeta/pebblemeta.go",
			old:   "func (db *DB) fatal(err error) {\n",
			new:   "func (db *DB) fatal(err error) {\n	if err != nil {\n		return\n	}\n",
			tests: []string{"store/pebblemeta.TestALogThatCannotBeWrittenEndsTheProcess"},
		},
	}
}
