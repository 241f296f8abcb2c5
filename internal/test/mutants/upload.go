package main

// ofUpload breaks what uploads and the keeper do.
func ofUpload() []mutant {
	return []mutant{
		{
			name: "a-put-that-repeats-does-not-ask-again", promise: 15, file: "upload/sink.go",
			old:   "	if err := k.digested(); err != nil || k.rechecked {",
			new:   "	if err := k.digested(); err != nil || true {",
			tests: []string{"upload.TestARightThatEndsInTheBody"},
		},
		{
			name: "a-cut-put-moves-the-hash", promise: 4, file: "upload/sink.go",
			old:   "		k.hash.h.Write(p[k.hash.off-off:])\n		k.hash.off = end\n",
			new:   "		k.hash.h.Write(p[k.hash.off-off:])\n		k.hash.off = end\n		k.active.mu.Lock()\n		k.active.hash, k.active.loaded = *k.hash, true\n		k.active.mu.Unlock()\n",
			tests: []string{"upload.TestACutPutDoesNotMoveTheHash"},
		},
		{
			name: "recorded-bytes-are-not-compared", promise: 5, file: "upload/sink.go",
			old:   "	if !bytes.Equal(b, p) {\n		return k.conflict(",
			new:   "	if false {\n		return k.conflict(",
			tests: []string{"upload.TestRecordedBytesAreNeverRewritten"},
		},
		{
			name: "the-sha256-is-not-compared", promise: 4, file: "upload/finish.go",
			old:   "	if sum != req.SHA256 && !req.UseServerDigest {",
			new:   "	if false {",
			tests: []string{"upload.TestReplaceWithdrawsAndStoresElsewhere"},
		},
		{
			name: "the-length-is-not-compared", promise: 4, file: "upload/finish.go",
			old:   "	if end >= 0 && end != req.Length {",
			new:   "	if false {",
			tests: []string{"upload.TestAFinishNamesTheWholeLength"},
		},
		{
			name: "the-content-digest-is-not-compared", promise: 4, file: "upload/sink.go",
			old:   "	if want := p.SHA256; want != nil && !bytes.Equal(sum, want[:]) {",
			new:   "	if want := p.SHA256; want != nil && false {",
			tests: []string{"upload.TestAPutOfOtherBytesThanItsDigestIsNotRecorded"},
		},
		{
			name: "the-crc-of-a-body-is-not-compared", promise: 4, file: "upload/sink.go",
			old:   "	if want := p.CRC32C; want != nil && *want != crc {",
			new:   "	if want := p.CRC32C; want != nil && false {",
			tests: []string{"upload.TestAPutOfOtherBytesThanItsDigestIsNotRecorded"},
		},
		{
			name: "finish-does-not-settle", promise: 2, file: "upload/finish.go",
			old:   "		if err := u.cfg.Blobs.Persist(ctx, extents); err != nil {\n			return false, err\n		}\n		at := u.moment()",
			new:   "		at := u.moment()",
			tests: []string{"upload.TestAFailedSyncAsksForWhatIsLost", "internal/test/crashtest.TestACrashAtEveryStep"},
		},
		{
			name: "create-does-not-settle", promise: 2, file: "upload/create.go",
			old:   "	if err := u.cfg.Blobs.Persist(ctx, content.Extents); err != nil {\n		return m, err\n	}\n",
			new:   "",
			tests: []string{"upload.TestWhatCannotBeSettledIsNotPublished"},
		},
		{
			name: "what-a-failed-sync-lost-is-not-dropped", promise: 7, file: "upload/finish.go",
			old:   "	if !errors.As(err, &failed) {",
			new:   "	if !errors.As(err, &failed) || true {",
			tests: []string{"upload.TestAFailedSyncAsksForWhatIsLost"},
		},
		{
			name: "the-role-is-not-asked-for-in-the-commit-of-a-finish", promise: 15, file: "upload/finish.go",
			old:   "			if err := u.allow(tx, c, access.Upload, open[0].n.Capsule); err != nil {\n				return err\n			}\n",
			new:   "",
			tests: []string{"upload.TestTheCommitAsksOnceMore", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "the-role-is-not-asked-for-in-the-commit-of-a-create", promise: 15, file: "upload/create.go",
			old:   "		if _, err := access.Allow(tx, c, access.Write, n.Capsule, at.Now); err != nil {\n			return err\n		}\n",
			new:   "",
			tests: []string{"upload.TestTheCommitAsksOnceMore", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "anybody-has-every-session", promise: 15, file: "upload/service.go",
			old:   "	if s.Owner != c.Principal {",
			new:   "	if false {",
			tests: []string{"upload.TestNobodyElseSeesASession"},
		},
		{
			name: "a-batch-is-published-in-part", promise: 3, file: "upload/finish.go",
			old:   "	if failures != nil {\n		return nil, false, &BatchError{failures}\n	}\n	var open",
			new:   "	good := vs[:0]\n	for _, v := range vs {\n		if v != nil {\n			good = append(good, v)\n		}\n	}\n	vs = good\n	if len(vs) == 0 {\n		return nil, false, &BatchError{failures}\n	}\n	var open",
			tests: []string{"upload.TestABatchAppearsAtOnceOrNotAtAll"},
		},
		{
			name: "each-session-of-a-batch-has-a-commit-of-its-own", promise: 3, file: "upload/finish.go",
			old:   "		err := u.cfg.Sessions.Finish(ctx, u.committing(c, open), wants...)\n",
			new:   "		var err error\n		for i := range open {\n			if err == nil {\n				err = u.cfg.Sessions.Finish(ctx, u.committing(c, open[i:i+1]), wants[i])\n			}\n		}\n",
			tests: []string{"upload.TestWhatCannotBeSettledIsNotPublished"},
		},
		{
			name: "an-idem-answers-another-request-while-it-is-open", promise: 5, file: "upload/begin.go",
			old:   "	if !bytes.Equal(old.Fingerprint, n.Fingerprint) {",
			new:   "	if false {",
			tests: []string{"upload.TestIdemAnswersTheSameUpload"},
		},
		{
			name: "an-idem-answers-another-request-when-it-is-finished", promise: 5, file: "upload/begin.go",
			old:   "		if !bytes.Equal(row.Fingerprint, n.Fingerprint) {",
			new:   "		if false {",
			tests: []string{"upload.TestAFinishedIdemRefusesAnotherRequest"},
		},
		{
			name: "rotten-pieces-are-trusted-at-finish", promise: 1, file: "upload/finish.go",
			old:   "	if s, err = u.ensureChecked(ctx, s, blob.CheckBeforeCrash); err != nil {\n		return nil, err\n	}\n",
			new:   "",
			tests: []string{"upload.TestWhatRottedWhileTheServerWasDeadIsNotPublished"},
		},
		{
			name: "bytes-that-replace-others-go-to-the-same-place", promise: 4, file: "upload/sink.go",
			old:   "		return s.Dropped[n-1].Gen",
			new:   "		return 0",
			tests: []string{"upload.TestReplaceWithdrawsAndStoresElsewhere"},
		},
		{
			name: "merged-pieces-keep-the-first-crc", promise: 4, file: "upload/note.go",
			old:   "	out.CRC = combineCRC(na.CRC, nb.CRC, b.Len())\n",
			new:   "",
			tests: []string{"upload.FuzzMerge", "upload.TestAnyHistoryEndsInTheRightBytes"},
		},
		{
			name: "the-hash-begins-behind-a-gap", promise: 4, file: "upload/extents.go",
			old:   "		if e.Off > from || i > 0 && e.Off != from {\n",
			new:   "		if i > 0 && e.Off != from {\n",
			tests: []string{"upload.TestTheHashLeavesNothingOut"},
		},
		{
			name: "the-crc-is-of-the-first-part-of-a-buffer", promise: 4, file: "upload/sink.go",
			old:   "		at.crc = crc32.Update(at.crc, castagnoli, part)\n",
			new:   "		if at.End-off < hashBlock {\n			at.crc = crc32.Update(at.crc, castagnoli, part)\n		}\n",
			tests: []string{"upload.TestTheChecksumIsOfAllBytes"},
		},
		{
			name: "orphans-go-without-grace", promise: 7, file: "keeper/sweep.go",
			old:   "before && s.now-since >= ",
			new:   "before && s.now-since >= 0*",
			tests: []string{"keeper.TestOrphansAreSweptWhenNobodyCanBeAboutToNameThem"},
		},
		{
			name: "orphans-stay", promise: 7, file: "keeper/sweep.go",
			old:   "before && s.now-since >= ",
			new:   "before && s.now-since < ",
			tests: []string{"keeper.TestOneBadOrphanKeepsNoOther"},
		},
		{
			name: "keys-are-kept-for-ever", promise: 7, file: "catalog/memory.go",
			old:   "		err = tx.Delete(IdemTable, []byte(d.Key))\n",
			new:   "",
			tests: []string{"internal/test/crashtest.TestNothingGrowsFromDayToDay"},
		},
		{
			name: "ended-sessions-are-kept-for-ever", promise: 7, file: "session/expiry.go",
			old:   "	if due = running - v.cfg.Keep.Milliseconds(); due > 0 && ctx.Err() == nil {",
			new:   "	if due = 0; due > 0 && ctx.Err() == nil {",
			tests: []string{"internal/test/crashtest.TestNothingGrowsFromDayToDay"},
		},
		{
			name: "the-sweep-takes-what-open-sessions-have", promise: 1, file: "keeper/sweep.go",
			old:   "	if err == nil && !s.State.Ended() {",
			new:   "	if err == nil && !s.State.Ended() && false {",
			tests: []string{"keeper.TestOrphansAreSweptWhenNobodyCanBeAboutToNameThem", "internal/test/crashtest.TestTheCollectorAmongEverything"},
		},
		{
			name: "the-sweep-takes-what-a-create-is-writing", promise: 2, file: "keeper/sweep.go",
			old:   "	if k.cfg.Uploads.Creating(p.Session) {",
			new:   "	if false {",
			tests: []string{"keeper.TestACreateThatTakesLongKeepsItsPlace"},
		},
		{
			name: "the-row-goes-before-the-bytes", promise: 7, file: "keeper/keeper.go",
			old:   "			return fmt.Errorf(\"deleting place %s: %w\", d.Key, err)",
			new:   "			k.cfg.Log.Error(\"deleting\", \"err\", err)",
			tests: []string{"keeper.TestWhatCannotBeDeletedIsTriedAgain"},
		},
		{
			name: "a-part-of-a-rotten-piece-can-not-be-replaced", promise: 6, file: "upload/put.go",
			old:   "			return mayCome, k.u.handleUnreadable(ctx, s.ID, r, err)",
			new:   "			return mayCome, err",
			tests: []string{"upload.TestAPartOfARottenPieceIsReplaced"},
		},
	}
}
