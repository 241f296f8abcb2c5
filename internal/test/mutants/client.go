package main

// ofClient breaks what the client and the server agree on.
func ofClient() []mutant {
	return []mutant{
		{
			name: "a-stored-path-is-compared-as-given", promise: 3, file: "memories/list.go",
			old:   "strings.TrimSuffix(req.PathPrefix, \"/\")), catalog.Comparable(req.Name)",
			new:   "strings.TrimSuffix(req.PathPrefix, \"/\")), req.Name",
			tests: []string{"memories.TestListsCompareInOneFormOfUnicode"},
		},
		{
			name: "get-takes-any-file-for-its-part", promise: 6, file: "download/own.go",
			old:   "	if j.fresh {\n		return true, nil\n	}\n	if is",
			new:   "	if j.part != nil {\n		return true, nil\n	}\n	if is",
			tests: []string{"download.TestWhatIsNotGetsOwnIsLeftAsItIs"},
		},
		{
			name: "a-part-that-lost-its-name-is-published", promise: 4, file: "download/part.go",
			old:   "	if named, err := durable.Named(j.part, j.req.partPath()); err != nil || !named {\n		return false, errors.Join(err, &InTheWayError",
			new:   "	if named, err := durable.Named(j.part, j.req.partPath()); err != nil || !named && false {\n		return false, errors.Join(err, &InTheWayError",
			tests: []string{"download.TestAPartThatLosesItsNameIsNotPublished"},
		},
		{
			name: "a-link-is-followed-to-a-part", promise: 6, file: "internal/durable/lock_unix.go",
			old:   "os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK",
			new:   "os.O_RDWR|syscall.O_NONBLOCK",
			tests: []string{"download.TestWhatIsNotGetsOwnIsLeftAsItIs"},
		},
		{
			name: "a-file-that-appeared-is-replaced", promise: 6, file: "download/part.go",
			old:   "	if j.req.New {",
			new:   "	if false {",
			tests: []string{"download.TestAFileThatAppearsMeanwhileIsNotReplaced"},
		},
		{
			name: "a-touched-file-is-not-looked-at-again", promise: 4, file: "sender/state.go",
			old:   "	return now, now != t.state, nil",
			new:   "	return now, false, nil",
			tests: []string{"sender.TestAPartThatIsWrittenAnewIsSentAgainAlone"},
		},
		{
			name: "a-finished-upload-is-not-compared", promise: 5, file: "sender/sender.go",
			old:   "		case err == nil && m.SHA256 != hex.EncodeToString(sum[:]):",
			new:   "		case err == nil && m.SHA256 == \"\":",
			tests: []string{"sender.TestAMemoryWithOtherBytesIsNotTakenForTheFiles"},
		},
		{
			name: "the-size-of-a-file-is-believed", promise: 4, file: "sender/state.go",
			old:   "		if now.size == st.size {\n			return false, nil",
			new:   "		if now.size == st.size {\n			return true, nil",
			tests: []string{"sender.TestASizeThatLiesIsNotBelieved"},
		},
		{
			name: "each-request-backs-off-alone", promise: 12, file: "internal/backoff/backoff.go",
			old:   "	if until := now.Add(pause); until.After(s.until) {",
			new:   "	if until := now.Add(pause); false {",
			tests: []string{"internal/backoff.TestAFrontThatRefusesIsAskedAboutAsOftenAsItTakes", "sender.TestAFrontThatLimitsRequestsIsWaitedForByAllTogether"},
		},
		{
			name: "a-redirect-is-worth-another-attempt", promise: 14, file: "api/client_class.go",
			old:   "{300, 399, Permanent,",
			new:   "{300, 399, Gateway,",
			tests: []string{"cmd/sluice.TestAGetThatIsSentElsewhereEnds"},
		},
		{
			name: "patience-does-not-bound-a-pause", promise: 12, file: "sender/wait.go",
			old:   "	t := time.NewTimer(min(d, left))",
			new:   "	t := time.NewTimer(d)",
			tests: []string{"sender.TestPatienceIsABoundEverywhere"},
		},
		{
			name: "any-json-is-an-answer", promise: 14, file: "api/client_answer.go",
			old:   "	if err == nil && lacks != \"\" {",
			new:   "	if false {",
			tests: []string{"api.TestNoForeignJSONIsTakenForAnAnswer", "cmd/sluice.TestNoCommandTakesAWebServerForSluice"},
		},
		{
			name: "a-null-is-a-list", promise: 14, file: "api/client_answer.go",
			old:   "	case kind == 'n' && e.nullable, kind",
			new:   "	case kind == 'n', kind",
			tests: []string{"api.TestNoForeignJSONIsTakenForAnAnswer", "api.TestAnAnswerHasAllItsMembers"},
		},
		{
			name: "what-is-left-out-is-a-success", promise: 14, file: "cmd/sluice/put_folder.go",
			old:   "	p.left++\n	p.failed = true\n",
			new:   "	p.left++\n",
			tests: []string{"cmd/sluice.TestWhatPutLeavesOutIsInItsExitStatus"},
		},
	}
}
