"""Names that scanners, sites and data sets give series, each with what it is."""

from vitaepp.ingest.layouts.series import modality_of, series_rules

#: MR: by modality, descriptions in the spelling in which they occur.
MR = {
    "t1": """
        AX T1 | T1 | SAG T1 | Cor T1 SE | Ax T1 FSE | T1_MPRAGE_SAG_P2_ISO | t1_mprage_sag_p2_iso
        t1_mprage_ns_sag_fast | T1_MPR | T1w_MPR | 3D_T1w_MPRAGE | MPRAGE | Sag_MPRAGE | MP-RAGE
        t1_mp2rage_sag_p3_iso_UNI_Images | MP2RAGE_wip900D_VE11C_UNI-DEN | SAG SPGR | SAG 3D FSPGR
        3D Ax T1 FSPGR | Ax T1 BRAVO | Sag FSPGR BRAVO | IR-SPGR | sT1W_3D_TFE | T1W_3D_TFE_SENSE
        sT1W_3D_TFE_AX PRE | sT1W_3D_TFE_PRE_GD | CS sag T1W_3D_TFE nativ | eT1W_SE | T1W_SE
        T1W_IR | t1_se_tra | t1_fl2d_tra | t1_tse_tra_p2 | t1_spc_sag_iso | T1 CUBE
        t1_vibe_tra_dixon_W | Ax T1 FLAIR | Sag T1,Flair | OSag T1 FLAIR | T1 FLAIR AX
        t1_tirm_tra_dark-fluid | T1pre_reg | T1 pre | PRE T1 | AX T1 PRE-CONTRAST
        pre-contrast T1 | T1 non-contrast | T1 noncontrast | AX T1 NON CONTRAST | AX T1 C- | T1 -C
        Ax T1 w/o | T1 without contrast | T1 W/O GD | AX T1 WO CON | SAG T1 NO GAD | T1 unenhanced
        T1 plain | t1_se_tra nativ | T1 ohne KM | T1 tra vor KM | T1 SE SANS INJECTION
        AX T1 sans gado | T1 avant injection | T1 senza mdc | T1 SE ASSIALE BASALE
        T1 SIN CONTRASTE | T1 sin civ | C-SPINE T1 SAG | T1 C SPINE SAG | T1 MPRAGE POST-OP
        AX T1 postop | T1 preop | SAG T1 MPR | Accelerated Sagittal MPRAGE | Sag IR-FSPGR
        sub-01_T1w | t1_Dixon_cor | MPRAGE_GRAPPA2 | T1W_HR | QUICK 3D T1 | 3DT1 | SAGT1
        T1-weighted | T1 RAGE
    """,
    "t1ce": """
        AX T1 POST GD | AX T1 POST | POST AX T1 | Ax T1 +C | AX T1+C | T1 C+ | AX T1 C+ FS
        C+ AX T1 | COR T1+C | OCor T1+C | Ax T1 FS +C | T1wCE | T1w CE | t1ce | T1c | T1-C | CE T1
        T1GD | T1 Gd | T1post | T1_POST_GAD | T1 POST-CONTRAST | T1 postcontrast
        T1 WITH CONTRAST | T1 w contrast | AX T1 W/ GAD | T1 CONTRAST | T1 ENHANCED
        T1W 3D TFE Gd | sT1W_3D_TFE_GD | T1W_3D_TFE+C | t1_tse_tra_km | t1_mprage_sag_KM
        T1 nach KM | T1 tra +KM | ax T1 FSPGR 3D KM | AI_T1 3D sag KM | t1_mprage_sagGD
        MPRAGE post contrast | MPRAGE+GD | SAG 3D FSPGR POST | BRAVO +C | POST BRAVO
        Ax 3D SPGR Post | t1_mprage_tra_iso_ce | Ax T1,Flair +C | Cor T1,Flair +C | T1 FLAIR POST
        AX T1 SE GADO | T1 après injection | T1 INJ | T1 TSE apres gado | AX T1 avec contraste
        T1 dopo mdc | T1 con mdc | T1 SE MDC | T1 CON CONTRASTE | T1 CIV | T1 con civ
        T1 POST-GD FS | AX T1 POST FSE FS | T1 FS POST STEALTH | T1 MPRAGE Dotarem
        t1_vibe_fs_tra_post | LAVA POST | T1 PC | SAG T1 MPRAGE POST GAD ISO | t1_space_post
    """,
    "t2": """
        T2 | AX T2 | AX T2 FSE | Ax T2 FRFSE | Ax T2 PROPELLER | t2_tse_tra | t2_tse_tra_320_p2
        T2W_TSE | sT2W_TSE | T2W_TSE_DRIVE | eT2W_TSE_DRIVE_HR | t2_spc_sag_p2_iso
        t2_space_sag_iso | T2w_SPC | T2 CUBE | T2_reg | t2_blade_tra | AX T2 FS | COR T2
        t2_tse_cor_0.5X0.5X1mm | T2_TSE_TRA_P2 | AX T2 POST | OAx T2 PROPELLER | sag_t2tse
        T2-weighted | 3D T2 SPACE SAG | T2 axial
    """,
    "flair": """
        FLAIR | AX FLAIR | AX T2 FLAIR | T2 FLAIR | T2-FLAIR | T2_FLAIR_tra | T2w_FLAIR
        FLAIR_longTR | eFLAIR_longTR_SPIR | eFLAIR_longTR | T2W_FLAIR | 3D_FLAIR | 3D FLAIR CUBE
        Sag CUBE T2 FLAIR | t2_tirm_tra_dark-fluid | t2_tirm_tra_dark-fluid_FLAIR
        t2_TIRM_TRA_dark-fluid_3mm | t2_space_dark-fluid | t2_space_dark-fluid_sag_iso
        t2_spc_da-fl_sag | t2_spc_ir_sag_iso | FLAIR_reg | FLAIRreg | Ax Flair irFSE
        T2 FLAIR PROPELLER | OAx T2 FLAIR+C | sag_t2flair | FLAIR VISTA | Brain VIEW FLAIR
        t2_FLAIR_P3 | Ax FLAIR POST | FLAIR axial
    """,
    "pd": "PD | AX PD | pd_tse_tra | PDW_TSE | Proton density | DP TSE | densité de protons",
    "dwi": """
        DWI | Ax DWI | DWI b1000 | AX DWI B=1000 | ep2d_diff_3scan_trace_p2
        ep2d_diff_4scan_trace_p2 | ep2d_diff_mddw_20_p2 | resolve_4scan_trace_tra_p2_192
        ep2d_diff_b1000_TRACEW | DTI 25 dir | Ax DTI | dMRI_dir106_AP_2x2x2 | DW_SSh
        eDW_SSh SENSE | ax_dki_P>>A | Diffusion | DIFFUSION AX | diffusione | Difusión
        DIFUSION B1000 | Isotropic image: DWI | b1000
    """,
    "adc": """
        ADC | ADC (10^-6 mm2/s) | ADC map | dADC | IsoADC | ep2d_diff_b1000_ADC | Average DC
        ep2d_diff_3scan_trace_p2_ADC | resolve_4scan_trace_tra_p2_192_ADC | ax_dki_P>>A_ADC
        Apparent Diffusion Coefficient (mm2/s) | Reg - DWI ADC | Carte ADC
    """,
    "swi": """
        SWI | SWI_Images | Ax SWI | SWIp | 3D SWAN | Ax 3D SWAN GRE straight | T2*_GRE
        AX T2* GRE | T2* | T2 star | T2star_tra | AX T2 GRE | T2W_FFE | T2_FFE | t2_fl2d_tra_hemo
        t2_fl2d_tra | AX MPGR | Susceptibility
    """,
    "ignore": """
        3-plane localizer | 3-plane loc | 3 Plane Localizer | LOCALIZER | localizer
        MIDLINE SAG LOC | SURVEY | Survey_SHC | AAHead_Scout | AAHScout
        s01_AAHead_Scout_64ch-head-coil_MPR_sag | scout | Lokalizer | Localisateur | Repérage
        Cal Head 24 | ASSET calibration | REF SCAN | SmartPrep | SUB | T1 SUB | SUB T1
        T1_SUB_POST-PRE | Subtraction | T1 subtracted | (POST MINUS PRE) T1 | Soustraction T1
        dT1 | T1 map | T2 map | T1_Map | T2 mapping | T2_MapIt | T2* map | R2* | T1 MOLLI
        t1_mp2rage_sag_p3_iso_T1_Images | t1_mp2rage_sag_INV1 | T1_Images_B1corr | field map
        B0 map | SpinEchoFieldMap_AP | gre_field_mapping | Field_mapping | B0rf Map | rCBV map
        CBF | rCBV | rMTT | MTT | TTP | Tmax | RELCBV_LOCAL_perf_tra17_6_MoCo
        PBP_perf_tra17_6_MoCo | GBP_perf | ep2d_perf | DSC perfusion | PERFUSION T2
        T2* perfusion | DCE T1 | T1 dynamic | t1_twist | ASL | 3D pCASL | PWI | Ktrans | fMRI
        rfMRI_REST_AP | rfMRI_REST_AP_SBRef | ep2d_bold_rest | VEN_BOLD | MRS | svs_se_135
        Mag_Images | Pha_Images | FILT_PHA: SWI | SWI phase | mIP_Images(SW) | mIP SWAN | TOF
        TOF MIP | TOF_3D_multi-slab | MRA COW | CE MRA | MRV | COL:TOF_3D | 3D PC | Phase contrast
        PJN:TOF | ep2d_diff_mddw_20_p2_FA | dMRI_dir106_AP_2x2x2_ColFA | Fractional Ansio. | eADC
        Exponential Apparent Diffusion Coefficient | ep2d_diff_TENSOR | t2_ci3d_tra_iso | T2 CISS
        3D FIESTA | STIR | T2 STIR | eSTIR_longTE | t2_tirm_cor_fs | PhoenixZIPReport
        Screen Save
    """,
    "": "HippoCrop | ax recon | TRA | COR | SAG | Coronal | 1 | IRM | Anon | Double_TSE | BRAIN",
}

CT = {
    "ct": """
        CT Thorax 1.0 B70f | LUNG 1.25mm | Thorax 5.0 I31f 3 | BONE PLUS | Head 5.0 H31s
        AC CT WB | CTAC | CHEST W/O CONTRAST | Abdomen 3.0 B30f | ABD PORTAL VENOUS | AX 2.5 SOFT
        T2 vertebra | CTA HEAD
    """,
    "ignore": """
        scout | Topogramm 0.6 T20f | Topogram | Surview | Scanogram | Dose Report
        Patient Protocol | Dose Info | PreMonitoring | Monitoring 10.0 B30f | SmartPrep Series
        LUNG MIP | AX MIP 10/3 | CT Perfusion | VRT | Exam Summary | Key Images
    """,
}

PET = {
    "pet": "PET AC | MAC | WB MAC | PET WB (AC) | FDG brain | LOR-RAMLA | 3D MAC",
    "ignore": "PET NAC | WB NAC | PET WB Uncorrected | NoAC | PET statistics | MIP | Fused PET CT",
}

CASES = [
    (kind, name.strip(), modality)
    for kind, table in (("MR", MR), ("CT", CT), ("PT", PET))
    for modality, names in table.items()
    for line in names.splitlines()
    for name in line.split(" | ")
    if name.strip()
]


def test_there_are_many():
    assert len({(kind, name) for kind, name, _ in CASES}) == len(CASES) >= 400


def test_names_in_use_are_told():
    rules = series_rules()
    told = [(kind, name, modality_of(name, kind, rules)) for kind, name, _ in CASES]
    assert told == CASES
