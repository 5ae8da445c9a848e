autocmd BufRead,BufNewFile *.wf setfiletype runkon
