package main

// ofCleanup breaks who gives back what, when, and who is asked for what a repeat does not need.
func ofCleanup() []mutant {
	return []mutant{
		{
			name: "a-resume-asks-for-room", promise: 5, file: "upload/begin.go",
			old:   "	if s.ID == 0 {\n		var created bool",
			new:   "	if err := u.takesNew(ctx, req.Refuse, req.Bytes); err != nil {\n		return up, false, err\n	}\n	if s.ID == 0 {\n		var created bool",
			tests: []string{"upload.TestARepeatPaysForNothingNew", "api.TestARepeatIsAnsweredWhileDraining"},
		},
		{
			name: "a-repeated-chunk-asks-for-room", promise: 5, file: "upload/put.go",
			old:   "	if !p.Replace && session.Covers(",
			new:   "	if false && session.Covers(",
			tests: []string{"upload.TestARepeatPaysForNothingNew"},
		},
		{
			name: "what-comes-behind-a-repeat-asks-for-no-room", promise: 6, file: "upload/sink.go",
			old:   "		if err := k.u.hasRoom(); err != nil {\n			return err\n		}\n",
			new:   "",
			tests: []string{"upload.TestWhatComesBehindARepeatNeedsRoom"},
		},
		{
			name: "a-step-of-quota-does-not-shrink", promise: 6, file: "catalog/reserve.go",
			old:   "	if err := c.room(need, one); err != nil {",
			new:   "	if err := c.room(max(more, 0), one); err != nil {",
			tests: []string{"upload.TestAnUnknownLengthTakesWhatIsLeft"},
		},
		{
			name: "what-is-held-keeps-the-rest", promise: 7, file: "keeper/keeper.go",
			old:   "			if d.Kind != catalog.DuePlace || !k.held() {\n				failed.add(k.do(ctx, d))\n			}\n",
			new:   "			if d.Kind == catalog.DuePlace && k.held() {\n				return nil\n			}\n			failed.add(k.do(ctx, d))\n",
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
			old:   "	if orphan && (p.Old || before &&",
			new:   "	if orphan && (before &&",
			tests: []string{"keeper.TestWhatAnEarlierLifeLeftGoesAtOnce"},
		},
		{
			name: "a-check-opens-the-metadata-for-writing", promise: 10, file: "cmd/sluice/check.go",
			old:   "Die: die, Log: log, ReadOnly: !c.Repair,",
			new:   "Die: die, Log: log,",
			tests: []string{"cmd/sluice.TestACheckWritesNothing"},
		},
		{
			name: "a-check-opens-the-content-for-writing", promise: 10, file: "cmd/sluice/check.go",
			old:   "localblob.Options{Log: log, ReadOnly: !c.Repair}",
			new:   "localblob.Options{Log: log}",
			tests: []string{"cmd/sluice.TestACheckWritesNothing"},
		},
	}
}
