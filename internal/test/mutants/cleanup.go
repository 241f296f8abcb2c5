package main

// ofCleanup breaks who gives back what, when, and who is asked for what a repeat does not need.
func ofCleanup() []mutant {
	return []mutant{
		{
			name: "a-resume-asks-for-room", promise: 5, file: "upload/begin.go",
			old:   "	case refused != nil:\n",
			new:   "	case refused != nil && n.Capsule != \"\":\n		return up, false, refused\n	case refused != nil:\n",
			tests: []string{"upload.TestARepeatPaysForNothingNew", "api.TestARepeatIsAnsweredWhileDraining"},
		},
		{
			name: "a-repeated-chunk-asks-for-room", promise: 5, file: "upload/put.go",
			old:   "	if !k.put.Replace && session.Covers(",
			new:   "	if false && session.Covers(",
			tests: []string{"upload.TestARepeatPaysForNothingNew"},
		},
		{
			name: "what-comes-behind-a-repeat-asks-for-no-room", promise: 6, file: "upload/sink.go",
			old:   "		if err := k.u.checkSpace(); err != nil {\n			return err\n		}\n",
			new:   "",
			tests: []string{"upload.TestWhatComesBehindARepeatNeedsRoom"},
		},
		{
			name: "a-step-of-quota-does-not-shrink", promise: 6, file: "catalog/reserve.go",
			old:   "	if err := c.Fits(need, one); err != nil {",
			new:   "	if err := c.Fits(max(more, 0), one); err != nil {",
			tests: []string{"upload.TestAnUnknownLengthTakesWhatIsLeft"},
		},
		{
			name: "what-is-held-keeps-the-rest", promise: 7, file: "keeper/keeper.go",
			old:   "			if d.Kind != catalog.DuePlace || !k.held() {\n",
			new:   "			if d.Kind == catalog.DuePlace && k.held() {\n				return nil\n			}\n			if true {\n",
			tests: []string{"keeper.TestHeldPlacesKeepNothingElse"},
		},
		{
			name: "what-cannot-be-recognised-is-garbage", promise: 7, file: "keeper/sweep.go",
			old:   "		if names := named[p.Name]; len(names) > 0 {",
			new:   "		if names := named[p.Name]; false {",
			tests: []string{"keeper.TestWhatCannotBeRecognisedIsKeptWhereItIsNamed"},
		},
		{
			name: "what-sessions-name-is-not-looked-for", promise: 1, file: "keeper/sweep.go",
			old:   "				look(p.Extent.Place)",
			new:   "				_ = p",
			tests: []string{"keeper.TestWhatCannotBeRecognisedIsKeptWhereItIsNamed"},
		},
		{
			name: "what-earlier-lives-left-waits", promise: 7, file: "keeper/sweep.go",
			old:   "	if orphan && (p.Earlier || before &&",
			new:   "	if orphan && (before &&",
			tests: []string{"keeper.TestWhatAnEarlierLifeLeftGoesAtOnce"},
		},
		{
			name: "a-check-opens-the-metadata-for-writing", promise: 10, file: "cmd/sluice/check.go",
			old:   "Die: die, Log: log, ReadOnly: !c.Repair}",
			new:   "Die: die, Log: log}",
			tests: []string{"cmd/sluice.TestACheckWritesNothing"},
		},
		{
			name: "a-check-opens-the-content-for-writing", promise: 10, file: "cmd/sluice/check.go",
			old:   "localblob.Options{Log: log, ReadOnly: !c.Repair}",
			new:   "localblob.Options{Log: log}",
			tests: []string{"cmd/sluice.TestACheckWritesNothing"},
		},
		{
			name: "a-create-asks-for-quota-after-its-body", promise: 6, file: "upload/create.go",
			old:   "			err = c.Fits(all.bytes, all.memories)",
			new:   "			err = c.Fits(0*all.bytes, 0)",
			tests: []string{"internal/test/crashtest.TestTheDiskIsBoundedByTheQuota"},
		},
		{
			name: "a-create-that-fails-leaves-its-place", promise: 7, file: "upload/create.go",
			old:   "			if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {\n				u.deletePlaces(",
			new:   "			if false {\n				u.deletePlaces(",
			tests: []string{"internal/test/crashtest.TestTheDiskIsBoundedByTheQuota"},
		},
		{
			name: "a-put-that-fails-gives-nothing-back", promise: 7, file: "session/put.go",
			old:   "	if err != nil || len(t.pending) > 0 {",
			new:   "	if false {",
			tests: []string{"internal/test/crashtest.TestTheDiskIsBoundedByTheQuota"},
		},
		{
			name: "what-was-taken-over-is-undone", promise: 1, file: "session/put.go",
			old:   "	if !t.fenced {\n		t.buffer.Wait()",
			new:   "	if true {\n		t.buffer.Wait()",
			tests: []string{"session.TestWhatIsUndone"},
		},
		{
			name: "what-is-recorded-is-undone", promise: 1, file: "session/put.go",
			old:   "		u.Undo(Gaps(s.Received, t.r, 0))",
			new:   "		u.Undo([]Range{t.r})",
			tests: []string{"session.TestWhatIsUndone"},
		},
		{
			name: "what-is-replaced-stays", promise: 7, file: "upload/leftover.go",
			old:   "			u.rememberLeftover(n.Place, id, placeGen(s)-1)",
			new:   "			_ = n",
			tests: []string{"internal/test/crashtest.TestTheDiskIsBoundedByTheQuota"},
		},
		{
			name: "what-an-abort-leaves-waits", promise: 7, file: "upload/release.go",
			old:   "	if err == nil && to == session.Aborted {",
			new:   "	if false {",
			tests: []string{"internal/test/crashtest.TestTheDiskIsBoundedByTheQuota"},
		},
		{
			name: "a-place-that-is-written-is-reclaimed", promise: 1, file: "upload/leftover.go",
			old:   "			if gen <= l.gen {\n				return l, nil",
			new:   "			if gen <= l.gen && false {\n				return l, nil",
			tests: []string{"upload.TestAPlaceThatIsWrittenIsNotReclaimed"},
		},
		{
			name: "a-trim-takes-what-is-recorded", promise: 1, file: "store/localblob/trim.go",
			old:   "		at = max(at, e.Off+e.Len)",
			new:   "		at = max(at, e.Off)",
			tests: []string{"store/localblob.TestConformance", "internal/test/crashtest.TestWhatAKilledLifeLeftAtAnOpenSession"},
		},
		{
			name: "an-undo-takes-the-blocks-of-neighbours", promise: 1, file: "store/localblob/trim.go",
			old:   "	for at := (r.Off + page - 1) / page * page; at < end; {",
			new:   "	for at := r.Off / page * page; at < end; {",
			tests: []string{"store/localblob.TestConformance"},
		},
		{
			name: "what-a-killed-life-left-at-an-open-session-stays", promise: 7, file: "keeper/sweep.go",
			old:   "	if open && p.Earlier && !s.k.looked {",
			new:   "	if open && p.Earlier && !s.k.looked && false {",
			tests: []string{"internal/test/crashtest.TestWhatAKilledLifeLeftAtAnOpenSession"},
		},
		{
			name: "events-are-kept-for-ever", promise: 7, file: "catalog/capsule.go",
			old:   "	if c.Seq > MostEvents {\n		if err",
			new:   "	if false {\n		if err",
			tests: []string{"catalog.TestEventsAreForgotten"},
		},
		{
			name: "ended-sessions-are-not-bounded", promise: 17, file: "upload/release.go",
			old:   "		e.n++",
			new:   "		e.n = 1",
			tests: []string{"upload.TestEndedSessionsAreBounded"},
		},
		{
			name: "a-replacement-gives-back-what-was-there-when-it-began", promise: 7, file: "upload/leftover.go",
			old:   "	s, dropped, err := u.cfg.Sessions.Drop(ctx, id, r, u.clipNote)",
			new:   "	dropped, err := u.cfg.Sessions.Entries(ctx, id, r, 0)\n	if err != nil {\n		return session.Session{}, err\n	}\n	s, _, err := u.cfg.Sessions.Drop(ctx, id, r, u.clipNote)",
			tests: []string{"upload.TestReplacementsAtOnceLeaveNothing"},
		},
		{
			name: "what-an-end-comes-before-is-left", promise: 7, file: "upload/sink.go",
			old:   "k.runs[1:], true",
			new:   "k.runs[1:], false",
			tests: []string{"upload.TestAnAbortBetweenCommitAndRecordLeavesNothing"},
		},
	}
}
