" Colours for Runkon workflows. Steps, options and their values look alike whether they are known or
" not: what is wrong is told by the language server.
if exists("b:current_syntax")
  finish
endif

syntax iskeyword @,48-57,_,-

syntax keyword runkonStatement call gate script foreach parallel always
syntax keyword runkonConditional if unless
syntax keyword runkonRepeat while do
syntax keyword runkonStructure workflow meta inputs
syntax keyword runkonModifier required boolean default description
syntax keyword runkonConstant true false contained

syntax match runkonOption "\<\k\+\ze\s*=" nextgroup=runkonAssign skipwhite
syntax match runkonAssign "=" contained nextgroup=runkonConstant,runkonWord skipwhite
syntax match runkonWord "\<\h\k*\%(\s*\.\s*\h\k*\)\?\ze\%(\s*=\)\@!" contained contains=runkonConstant
syntax match runkonNumber "\<\d\+\>"

syntax region runkonString start=+"+ skip=+\\\\\|\\"+ end=+"+ contains=runkonEscape,runkonPlaceholder
syntax match runkonEscape "\\[nt\"\\]" contained
syntax match runkonPlaceholder "{{\s*\h[[:alnum:]_.-]*\s*}}" contained
syntax match runkonComment "//.*$" contains=@Spell

highlight default link runkonStatement Statement
highlight default link runkonConditional Conditional
highlight default link runkonRepeat Repeat
highlight default link runkonStructure Structure
highlight default link runkonModifier StorageClass
highlight default link runkonConstant Boolean
highlight default link runkonOption Identifier
highlight default link runkonAssign Operator
highlight default link runkonWord Constant
highlight default link runkonNumber Number
highlight default link runkonString String
highlight default link runkonEscape SpecialChar
highlight default link runkonPlaceholder Special
highlight default link runkonComment Comment

let b:current_syntax = "runkon"
