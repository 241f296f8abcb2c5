package main

// ofFronts breaks what is said over HTTP and written by the command.
func ofFronts() []mutant {
	return []mutant{
		{
			name: "a-route-forgets-the-token", promise: 14, file: "api/middleware.go",
			old:   "	if r.auth > linked {",
			new:   "	if r.auth == admin {",
			tests: []string{"api.TestNothingWithoutAToken"},
		},
		{
			name: "admin-routes-are-for-all", promise: 18, file: "api/middleware.go",
			old:   "	if r.auth == admin {\n",
			new:   "	if false {\n",
			tests: []string{"api.TestOnlyAnAdminMay"},
		},
		{
			name: "a-cut-body-counts-as-ended", promise: 1, file: "api/body.go",
			old:   "	if err == io.EOF && b.length >= 0 && b.received != b.length {\n		err = io.ErrUnexpectedEOF\n	}",
			new:   "	if err == io.ErrUnexpectedEOF {\n		err = io.EOF\n	}",
			tests: []string{"api.TestACutRangeKeepsWhatArrived"},
		},
		{
			name: "unknown-members-are-passed-over", promise: 17, file: "api/shape.go",
			old:   "		if !known {\n",
			new:   "		if !known {\n			if err := d.SkipValue(); err != nil {\n				return malformed(err)\n			}\n			continue\n",
			tests: []string{"api.FuzzJSON", "api.TestStrictJSON"},
		},
		{
			name: "a-body-may-be-compressed", promise: 17, file: "api/headers.go",
			old:   "	for _, v := range h[\"Content-Encoding\"] {",
			new:   "	for _, v := range h[\"\"] {",
			tests: []string{"api.TestContentEncodingIsRefused"},
		},
		{
			name: "a-page-of-html-is-shown-by-the-browser", promise: 16, file: "api/content.go",
			old:   "	return kind == \"image\" ||",
			new:   "	return media == \"text/html\" || kind == \"image\" ||",
			tests: []string{"api.FuzzPassive"},
		},
		{
			name: "a-name-becomes-a-header", promise: 16, file: "api/content.go",
			old:   "		if r > '~' || r == '\"' || r == '%' {",
			new:   "		if r > '~' || r == '%' {",
			tests: []string{"api.FuzzDisposition"},
		},
		{
			name: "an-answer-from-elsewhere-is-a-promise", promise: 1, file: "api/client_http.go",
			old:   "		if res.StatusCode != http.StatusNoContent {",
			new:   "	if false {",
			tests: []string{"api.FuzzForeignAnswer"},
		},
		{
			name: "get-writes-outside-of-its-folder", promise: 16, file: "cmd/sluice/get_names.go",
			old:   "		if r == '/' || r == '\\\\' || unicode.IsControl(r) {",
			new:   "		if unicode.IsControl(r) {",
			tests: []string{"cmd/sluice.FuzzSafeName"},
		},
		{
			name: "names-reach-the-terminal-as-they-are", promise: 16, file: "cmd/sluice/out.go",
			old:   "	if strings.IndexFunc(s, odd) < 0 && utf8.ValidString(s) {",
			new:   "	if true {",
			tests: []string{"cmd/sluice.FuzzClean"},
		},
		{
			name: "a-small-download-is-not-compared-with-its-digest", promise: 4, file: "download/small.go",
			old:   `		case sha256.Sum256(b) == j.digest:`,
			new:   `		case sha256.Sum256(b) != [32]byte{}:`,
			tests: []string{"download.TestASmallContentIsFetchedThroughMemory"},
		},
		{
			name: "a-download-is-not-compared-with-its-digest", promise: 4, file: "download/download.go",
			old:   "		if sum == j.digest {",
			new:   "		if sum == j.digest || true {",
			tests: []string{"download.TestAWrongContentNeverGetsTheName"},
		},
		{
			name: "two-framings-are-accepted", promise: 20, file: "internal/httpwire/framing.go",
			old:   "	case h.encoded && h.lengths > 0:",
			new:   "	case false:",
			tests: []string{"api.TestAmbiguousFramingIsRefused", "api.TestNoHeadSmugglesARequest"},
		},
		{
			name: "a-panic-is-not-answered", promise: 13, file: "api/middleware.go",
			old:   "			panicked := recover()\n",
			new:   "			panicked := any(nil)\n",
			tests: []string{"api.TestOurOwnTroubles"},
		},
	}
}
