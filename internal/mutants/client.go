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
	}
}
